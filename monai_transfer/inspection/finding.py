"""One thing that was found wrong (or odd) in a data set, as data and as one line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from monai_transfer.errors import printable

__all__ = ["Finding", "sort_findings"]

_RANK = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Finding:
    """What is wrong with one file or with the set.

    Attributes:
        severity: ``error`` (training on it would be wrong), ``warning`` (it may be meant so) or, for comparisons with a
            source model, ``note``.
        fault: what is wrong, in one clause.
        code: a short constant name of the kind of fault, e.g. ``label-grid``.
        file: full path of the file or folder; of the manifest where the fault is the set's.
        case, split: of the manifest; ``None`` where the fault is the set's.
        hint: what to do about it, in one clause.
        fixable: whether ``--fix-to`` can write a corrected copy.

    >>> Finding("warning", "3 channels where most have 1", "channels", "/data/a.png", hint="read it as grey").line()
    '/data/a.png: warning: 3 channels where most have 1; read it as grey [channels]'
    """

    severity: str
    fault: str
    code: str
    file: str | None = None
    case: str | None = None
    split: str | None = None
    hint: str | None = None
    fixable: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    def line(self) -> str:
        """One line, the full path first."""
        place = ", ".join(part for part in (f"case {self.case}" if self.case else "", self.split or "") if part)
        hint = self.hint or ""
        if self.fixable:
            hint = f"{hint}{' (' if hint else ''}--fix-to can do it{')' if hint else ''}"
        text = f"{self.severity}: {self.fault}" + (f"; {hint}" if hint else "") + f" [{self.code}]"
        text += f" ({place})" if place else ""
        return f"{printable(self.file)}: {' '.join(text.split())}" if self.file else " ".join(text.split())


def sort_findings(findings: list[Finding]) -> list[Finding]:
    """Errors first, then by file."""
    return sorted(findings, key=lambda f: (_RANK[f.severity], f.file or "", f.case or "", f.code, f.fault))
