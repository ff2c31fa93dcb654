"""Where a weights file inside a bundle or a run folder comes from, and under which licence, by what lies around it.

Weights that were trained from others stay bound by those others' licence, so it is looked for before the bundle's own
``LICENSE``, which speaks of the bundle: in ``large_files.yml``, in a run's ``weights.json``, in the metadata's note of
what the bundle started from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_transfer.bundle_reader.reading import read_metadata
from monai_transfer.content_kinds import without_odd_fields
from monai_transfer.errors import InputError
from monai_transfer.runs.kinds import WEIGHTS
from monai_transfer.safe_parse import read_json
from monai_transfer.weights.large_files import read_large_files

__all__ = ["Provenance", "is_non_commercial", "provenance_of"]


@dataclass(frozen=True)
class Provenance:
    """What is known of a weights file besides its content.

    Attributes:
        licence: that binds whoever uses it; ``None``: unknown.
        description: where it comes from, in words. url: where it is published. Both may be empty.
        channels: of its images, in order, where ``source.json`` beside it tells them.

    >>> is_non_commercial(Provenance("CC BY-NC-SA 4.0", "lungs of 100 patients").licence)
    True
    """

    licence: str | None = None
    description: str = ""
    url: str = ""
    channels: tuple[str, ...] = ()


def provenance_of(file: str | Path) -> Provenance:
    """What the bundle or run folder around ``<folder>/models/<file>`` says of it; empty where it says nothing.

    Args:
        file: of the weights.

    Raises:
        InputError: the bundle's ``large_files.yml`` cannot be read.

    >>> provenance_of("downloads/model.pt").licence is None  # not in a bundle: nobody says
    True
    """
    file = Path(file).absolute()
    root = file.parent.parent
    if file.parent.name != "models":
        return Provenance()
    listed = next((e for e in read_large_files(root) if root / e.path == file), None)
    if listed is not None and (listed.licence or listed.description):
        return Provenance(listed.licence, listed.description, listed.url, _channels_of(file))
    report = without_odd_fields(_json(root / "weights.json"), WEIGHTS)
    for note in (report, (_metadata(root).get("transfer") or {}).get("weights") or {}):
        if note.get("licence") or note.get("source") or note.get("description"):
            start = note.get("description") or note.get("source")
            return Provenance(note.get("licence"), f"trained from {start}" if start else "", note.get("url") or "")
    return Provenance()


def _channels_of(file: Path) -> tuple[str, ...]:
    """Of a bundle's ``models/source.pt``, which is its source as it came; other files have the bundle's own order."""
    told = _json(file.with_name("source.json")).get("channels") if file.name == "source.pt" else None
    return tuple(map(str, told)) if isinstance(told, list) else ()


def is_non_commercial(licence: str | None) -> bool:
    """Whether a licence, by its name or text, forbids commercial use.

    Args:
        licence: its name or text; None: unknown, which forbids nothing here.

    >>> is_non_commercial("CC BY-NC-SA 4.0"), is_non_commercial("Apache-2.0")
    (True, False)
    """
    text = (licence or "").lower()
    return any(sign in text for sign in ("-nc", " nc", "non-commercial", "noncommercial", "non commercial", "ncls"))


def _metadata(root: Path) -> dict[str, Any]:
    try:
        return read_metadata(root)
    except InputError:
        return {}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}
