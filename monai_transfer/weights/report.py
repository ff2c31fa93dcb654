"""What became of every tensor when weights were carried over: the page that goes into a run folder as weights.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from monai_transfer.content_kinds import refuse_odd_fields
from monai_transfer.errors import InputError
from monai_transfer.files import write_json
from monai_transfer.runs.kinds import WEIGHTS
from monai_transfer.safe_parse import read_json
from monai_transfer.weights.provenance import is_non_commercial

__all__ = ["WeightReport"]

_SHOWN = 8
"""Names shown per heading; the rest is counted."""


@dataclass
class WeightReport:
    """The result of ``load_weights``.

    Attributes:
        loaded: tensors of the network that were copied as they are.
        adapted: tensors that were copied after a change (classes by name, input channels, inflation, a resized
            table); ``notes`` says which.
        skipped: tensors whose counterpart did not fit and was left out; ``notes`` says why. They stay fresh.
        missing: tensors of the network that the source does not have. They stay fresh.
        unused: tensors of the source that the network has no place for, by their name in the source.
        notes: remarks by tensor name.
        fresh_norms: norm layers of which a scale, a shift or a running statistic was not loaded: what they do to
            features is not what the source did, however complete the rest.
        alternatives: keys of further weights in the file that fit as well and were left (an average, ``ema``):
            ``part=`` takes one.
        coverage: share of the elements of the network's ``parameters()`` that were loaded or adapted, in [0, 1];
            buffers are listed above, but not counted. 1 for a network without parameters.
        source: what was read, in words. ``source_sha256``: of the file, ``None`` for a state dict in memory.
        dialect: how the source's names were understood.
        licence: of the weights, as far as the source says. It binds whoever uses what was trained from them.
        url: where they are published, if the source says.

    >>> import logging, torch
    >>> from monai_transfer.weights import load_weights
    >>> from monai_transfer.weights.report import WeightReport
    >>> logging.disable(logging.WARNING)
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> theirs = {"0.weight": torch.ones(4, 4), "0.bias": torch.ones(4), "9.weight": torch.ones(1)}
    >>> report = load_weights(network, theirs)
    >>> report.loaded, report.missing, report.unused, round(report.coverage, 2)
    (['0.weight', '0.bias'], ['1.weight', '1.bias'], ['9.weight'], 0.67)
    """

    loaded: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    fresh_norms: list[str] = field(default_factory=list)
    alternatives: list[str] = field(default_factory=list)
    coverage: float = 0.0
    source: str = ""
    source_sha256: str | None = None
    dialect: str = "plain"
    licence: str | None = None
    url: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> WeightReport:
        """The inverse of ``to_dict``.

        Raises:
            InputError: there is a key that a report does not have, or a value of another kind.
        """
        unknown = set(content) - {f.name for f in fields(cls)}
        if unknown:
            raise InputError(f"a weight report has no {sorted(unknown)[0]!r}", hint="read a file written by `save`")
        refuse_odd_fields(content, WEIGHTS, "weights.json", "read a file written by `save`")
        return cls(**content)

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically; by custom ``weights.json`` in a run folder."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> WeightReport:
        """Read what ``save`` wrote.

        Raises:
            InputError: the file is not there or is no weight report.
        """
        try:
            return cls.from_dict(read_json(path))
        except (InputError, TypeError, AttributeError) as error:
            raise InputError("is no weight report", path=path, hint="name a weights.json of a run") from error

    @property
    def non_commercial(self) -> bool:
        """Whether the licence, as far as it is known, forbids commercial use."""
        return is_non_commercial(self.licence)

    def __str__(self) -> str:
        """A short table for people: counts, the first names, and the remarks, equal ones together."""
        lines = [f"weights from {self.source or 'a state dict'} ({self.dialect}): coverage {self.coverage:.1%}"]
        for title in ("loaded", "adapted", "skipped", "missing", "unused"):
            names: list[str] = getattr(self, title)
            line = f"  {title:8}{len(names):5}"
            if names and title not in ("loaded", "adapted", "skipped"):
                line += f"  {shorten(names)}"
            lines.append(line)
            if title in ("loaded", "adapted", "skipped"):
                remarked = [name for name in names if title != "loaded" or name in self.notes]
                lines += [f"{'':17}{text}" for text in self._remarks(remarked)]
        if self.fresh_norms:
            lines.append(
                f"  {len(self.fresh_norms)} norm layers stay fresh, in whole or part: {shorten(self.fresh_norms)}"
            )
        if self.alternatives:
            lines.append(f"  the file also holds weights under {', '.join(self.alternatives)}: part= takes them")
        if self.licence:
            warning = " (NON-COMMERCIAL: it binds what you train from these weights too)" if self.non_commercial else ""
            lines.append(f"  licence of the weights: {self.licence}{warning}")
        return "\n".join(lines)

    def _remarks(self, names: list[str]) -> list[str]:
        counted = Counter(self.notes.get(name, "") for name in names)
        first = {note: name for name in reversed(names) for note in [self.notes.get(name, "")]}
        shown = [
            f"{first[note]}{f' and {count - 1} more' if count > 1 else ''}: {note}" for note, count in counted.items()
        ]
        return shown[:_SHOWN] + ([f"... and {len(shown) - _SHOWN} more remarks"] if len(shown) > _SHOWN else [])


def shorten(names: Iterable[str], limit: int = 4) -> str:
    """The first few names, and how many more there are.

    Args:
        names: any.
        limit: how many are shown.

    >>> shorten(["a", "b", "c"], limit=2)
    'a, b, ... (3 in all)'
    """
    names = list(names)
    return ", ".join(names[:limit]) + (f", ... ({len(names)} in all)" if len(names) > limit else "")
