"""What every layout reader shares: the raw case that it finds, what it may be asked, and what it says it left out.

A layout is a module in this folder; its file's name is the layout's. It holds

- ``detect(folder) -> float``: 0 surely not, 1 surely; no two layouts should give one folder the same;
- ``read(folder, options) -> FolderContents``;
- where they differ from the defaults: ``OPTIONS`` (the fields of ``LayoutOptions`` that it heeds; none), ``GROUP`` (a
  name for several layouts; none), ``TAKES_FILE`` (a file may be given in place of a folder; no), ``PSEUDONYMS`` (case
  names and paths say nothing of the user's own; no).

Adding one is adding a file, and its test.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.files import atomic_path
from monai_transfer.manifest.options import LayoutOptions, Names

__all__ = [
    *("SPLIT_NAMES", "FolderContents", "Options", "RawCase"),
    *("count", "derived_path", "is_image", "is_picture", "list_files", "mask_of", "split_name", "stem"),
]

_VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")

_MASK = re.compile(
    r"^(?:(.*?)[ _.-]+)?(seg|segmentation|mask|label|labels|gt|ground_?truth|roi|annotation|1stHO|manual1?)$",
    re.IGNORECASE,
)

SPLIT_NAMES = {
    "training": ("training", "train", "tr"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "ts"),
    "unlabeled": ("unlabeled", "unlabelled"),
}
"""The names under which folders, columns and arrays give a split."""


@dataclass
class RawCase:
    """A case as a layout found it.

    Attributes:
        images: files of the image, one per channel.
        key: what tables call the case: mostly the file name without suffix. Need not be unique.
        place: path below the folder, without suffix; unique within one reading.
        label: mask path, class name, class number, float, ``{finding: 1, 0 or None}``, or ``None``.
        patient, site, split, acquired: where the layout itself tells them.
        annotated: the classes that were looked for in this case, where that is told.
        missing: numbers of the channels that this case lacks.
        aliases: other names under which a table may list the case; never shown, since they may identify a patient.
        origin: path below the folder as it was found, where ``place`` is a pseudonym; never shown for the same reason.

    >>> RawCase([Path("scans/p1/t1.nii.gz")], key="t1", place="p1/t1", label="ill").patient is None  # no one said
    True
    """

    images: list[Path]
    key: str
    place: str
    label: Path | str | int | float | dict[str, int | None] | None = None
    patient: str | None = None
    site: str | None = None
    split: str | None = None
    acquired: float | None = None
    annotated: list[str] | None = None
    missing: list[int] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    origin: Path | None = None


@dataclass
class FolderContents:
    """All that a layout found in a folder.

    Attributes:
        cases: the raw cases, in a fixed order.
        notes: one clause for everything that was left out or assumed.
        labels: class names by number, where the layout knows them.
        texts: ``name``, ``description``, ``modality``, ``licence``, ``reference``, ``task``, where the layout has them.
        channel_names: by number, where the layout knows them.
        label_values: the values of a class by its number, where they are not just that number.
        regions, regions_class_order, ignore: as in a manifest, where the layout knows them.
        annotated: by site the classes that were looked for, where the layout knows it.
        drawn: the masks were drawn by the layout, so their numbers are those of ``labels``.
        table: a table that is a part of the layout, as its file and the column that names the cases; ``rows`` where
            it was read already (several files may make up one).

    >>> found = FolderContents([RawCase([Path("a.png")], "a", "a", label="ill")], texts={"task": "classification"})
    >>> found.texts["task"], len(found.cases)
    ('classification', 1)
    """

    cases: list[RawCase]
    notes: list[str] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    channel_names: dict[int, str] = field(default_factory=dict)
    label_values: dict[int, list[int]] = field(default_factory=dict)
    regions: dict[str, list[int]] = field(default_factory=dict)
    regions_class_order: list[int] | None = None
    ignore: list[int] = field(default_factory=list)
    annotated: dict[str, list[str]] = field(default_factory=dict)
    drawn: bool = False
    table: tuple[Path, str] | None = None
    rows: Any = None


@dataclass(frozen=True)
class Options(LayoutOptions):
    """What a layout may be told: the fields of ``LayoutOptions``, and

    Args:
        files: folder beside the output for files that have to be made (created only when needed).
        labels: class names as the user gives them; needed where structures are drawn into masks.
        label_column: column of a table in the folder, where its name is unusual.
        findings, uncertain, unmentioned: columns of such a table that are findings, and what their cells mean.
        table: the table that the user gave, which may be one in the folder.
    """

    files: Path
    labels: Names | None = None
    label_column: str | None = None
    findings: Sequence[str] = ()
    uncertain: str = "ignore"
    unmentioned: str = "ignore"
    table: str | Path | None = None


def stem(path: str | Path) -> str:
    """File name without its (possibly double) suffix."""
    name = Path(path).name
    double = next((suffix for suffix in (".nii.gz", ".seg.nrrd") if name.lower().endswith(suffix)), None)
    return name[: -len(double)] if double else Path(name).stem


def mask_of(name: str) -> str | None:
    """The case whose mask a file is by its name without suffix: ``"P1_seg"`` -> ``"P1"``, ``"mask"`` -> ``""``, else
    ``None``."""
    match = _MASK.match(name)
    return None if match is None else match[1] or ""


def is_image(path: Path) -> bool:
    """Whether the name says that it is a volume or a picture (DICOM files are told by content, elsewhere)."""
    return path.name.lower().endswith(_VOLUMES + _PICTURES)


def is_picture(path: Path) -> bool:
    """Whether the name says that it is a picture: PNG, JPEG, TIFF, BMP, GIF."""
    return path.name.lower().endswith(_PICTURES)


def list_files(folder: Path) -> Iterator[Path]:
    """All files below ``folder``, sorted; hidden ones and what archivers leave behind are passed over.

    Raises:
        InputError: a name is not UTF-8 (copied from a system of another language), which JSON cannot hold.
    """
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in [*folders, *names]:
            try:
                name.encode()
            except UnicodeEncodeError:
                hint = "rename it, e.g. with convmv; a manifest is UTF-8"
                raise InputError("the name is not UTF-8", path=Path(where) / name, hint=hint) from None
        yield from (Path(where) / name for name in sorted(names) if not name.startswith("."))


@contextmanager
def derived_path(target: Path) -> Iterator[Path]:
    """A temporary path, renamed onto ``target`` at the end of the block.

    For the many small files that the same command makes again, so without the flush to disk of ``files.atomic_path``.
    """
    with atomic_path(target, flush=False) as temporary:
        yield temporary


def split_name(text: str) -> str | None:
    """The split that a folder, column or array name means, if it means one: ``"Train"`` -> ``"training"``."""
    word = re.sub(r"[^a-z]", "", text.lower())
    return next((split for split, names in SPLIT_NAMES.items() if word in names), None)


def count(n: int, what: str) -> str:
    """``1 image``, ``3 images``."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
