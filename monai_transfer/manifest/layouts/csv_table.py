"""A table alone: a CSV or TSV file whose rows name image files, with a label column where there are labels."""

from __future__ import annotations

from pathlib import Path

from monai_transfer.errors import InputError
from monai_transfer.manifest.layouts.base import FolderContents, Options, RawCase, count, is_image, list_files, stem
from monai_transfer.manifest.table import Table, parse_label

__all__ = ["detect", "find_table", "read"]


def find_table(folder: Path, options: Options) -> tuple[Table, str] | None:
    """The one table directly in ``folder`` whose rows name image files, with the column that does so."""
    hits = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in (".csv", ".tsv") or path.name.startswith("."):
            continue
        try:
            table = Table.read(path)
            column = table.column("path", options.path_column)
        except InputError:
            if options.path_column is None:
                continue
            raise
        if column and table.rows and _resolve(folder, table.rows[0][column]) is not None:
            hits.append((table, column))
    if len(hits) > 1:
        names = ", ".join(table.path.name for table, _ in hits)
        raise InputError(f"several tables name image files: {names}", path=folder, hint="leave one in the folder")
    return hits[0] if hits else None


def detect(folder: Path) -> float:
    """0.5 where exactly such a table is there."""
    return 0.5 if folder.is_dir() and find_table(folder, Options(folder)) else 0.0


def read(folder: Path, options: Options) -> FolderContents:
    """One case per row. A label that names a file is a mask, else a class or a number; an empty one is none.

    Raises:
        InputError: no such table, or a row names a file that is not there.
    """
    hit = find_table(folder, options)
    if hit is None:
        hint = "a column called path, file or image must name files from this folder, or name it with --path-column"
        raise InputError("no table here names image files", path=folder, hint=hint)
    table, column = hit
    found = FolderContents([], table=(table.path, column))
    label_column = table.column("label", options.label_column)
    mask_column = next((c for c in table.columns if c.lower() in ("mask", "segmentation", "mask_path")), None)
    for number, row in enumerate(table.rows, start=2):
        image = _resolve(folder, row[column])
        if image is None:
            raise InputError(f"row {number} names {row[column]!r}, which is not there", path=table.path)
        label = row[label_column] if label_column else row[mask_column] if mask_column else ""
        inside = image.is_relative_to(folder)
        place = image.relative_to(folder) if inside else Path(*image.parts[1:])
        found.cases.append(
            RawCase([image], stem(image), (place.parent / stem(place)).as_posix(), parse_label(label, [folder]))
        )
    if label_column is None and mask_column is None:
        found.notes.append(f"{table.path.name}: no label column seen; name it with --label-column")
    listed = {case.images[0] for case in found.cases}
    spare = sum(is_image(path) and path not in listed for path in list_files(folder))
    masks = {case.label for case in found.cases if isinstance(case.label, Path)}
    if spare - len(masks) > 0:
        found.notes.append(f"{count(spare - len(masks), 'image file')} not listed in {table.path.name}, left out")
    return found


def _resolve(folder: Path, name: str) -> Path | None:
    path = folder / name if name else None
    return path if path is not None and path.is_file() and is_image(path) else None
