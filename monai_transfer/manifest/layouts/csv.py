"""A table alone: a CSV or TSV file whose rows name image files, with labels in a column or in one column per finding.

A row names a file by its path from the folder, by that path with other folders in front (CheXpert), or by its
file name alone, wherever it lies (NIH). Tables called ``train`` and ``valid`` or the like, with the same columns, are
the splits of one.
"""

from __future__ import annotations

from pathlib import Path

from monai_transfer.errors import InputError
from monai_transfer.manifest.finding_columns import find_finding_columns, row_findings
from monai_transfer.manifest.layouts.base import (
    FolderContents,
    Options,
    RawCase,
    count,
    is_image,
    list_files,
    split_name,
    stem,
)
from monai_transfer.manifest.table import Table, parse_label

__all__ = ["detect", "find_table", "read"]

OPTIONS = ("path_column",)

_MASK_COLUMNS = ("mask", "segmentation", "mask_path", "label_path")


def find_table(folder: Path, options: Options) -> tuple[Table, str] | None:
    """The one table directly in ``folder`` whose rows name image files, with the column that does so.

    Of several it is the one that the user gave as ``options.table`` (NIH's boxes name images too).

    Raises:
        InputError: several do, none of them was given, and they are not the splits of one.
    """
    hits = _naming_images(folder, options)
    given = Path(options.table).resolve() if options.table else None
    hits = [hit for hit in hits if hit[0].path.resolve() == given] or hits
    if len(hits) < 2:
        return hits[0] if hits else None
    splits = [split_name(table.path.stem) for table, _ in hits]
    first, column = hits[0]
    if None in splits or len(set(splits)) < len(splits) or any(t.columns != first.columns for t, _ in hits):
        names = ", ".join(table.path.name for table, _ in hits)
        hint = f"say which with --table {first.path}, or call tables of equal columns train, valid and test"
        raise InputError(f"several tables name image files: {names}", path=folder, hint=hint)
    if first.column("split"):
        return Table(first.path, first.columns, [row for table, _ in hits for row in table.rows]), column
    rows = [row | {"split": str(split)} for (table, _), split in zip(hits, splits, strict=True) for row in table.rows]
    return Table(first.path, [*first.columns, "split"], rows), column


def _naming_images(folder: Path, options: Options) -> list[tuple[Table, str]]:
    """The tables in ``folder`` itself, and the given one, whose rows name image files; with the column that does so."""
    hits: list[tuple[Table, str]] = []
    tables = sorted(folder.iterdir())
    if options.table and Path(options.table).resolve() not in {path.resolve() for path in tables}:
        tables.append(Path(options.table))
    for path in tables:
        if path.suffix.lower() not in (".csv", ".tsv") or path.name.startswith("."):
            continue
        try:
            table = Table.read(path)
            column = table.column("path", options.path_column)
        except InputError:
            if options.path_column is None:
                continue
            raise
        if column and table.rows and Files(folder).find(table.rows[0][column]) is not None:
            hits.append((table, column))
    return hits


class Files:
    """The image files of a folder as a table names them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_name: dict[str, Path] | None = None

    def find(self, name: str) -> Path | None:
        """The file that ``name`` means: a path from the folder, with other folders in front, or a bare name.

        What stands in front is where the table's author had the folder: its name there, or a path from the root.
        """
        text = name.replace("\\", "/").removeprefix("./")
        if not text:
            return None
        parts = text.split("/")
        ends = [parts[n:] for n in range(1, len(parts) - 1)]  # a name alone may be that of another file
        if parts[0] == self.folder.name:
            ends.append(parts[1:])
        for way in (self.folder / text, *(self.folder.joinpath(*end) for end in ends)):
            if way.is_file() and is_image(way):
                return way
        if "/" in text:
            return None
        if self._by_name is None:
            self._by_name = {}
            for path in list_files(self.folder):
                if is_image(path):
                    for key in (path.name, stem(path)):
                        # a name that two files have names neither
                        self._by_name[key] = path if key not in self._by_name else Path()
        found = self._by_name.get(text)
        return found if found is not None and found != Path() else None


def detect(folder: Path) -> float:
    """0.5 where such a table is there; which of several is meant, ``read`` says."""
    return 0.5 if folder.is_dir() and _naming_images(folder, Options(files=folder)) else 0.0


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
    found = FolderContents([], table=(table.path, column), rows=table)
    label_column = table.column("label", options.label_column) if not options.findings else None
    mask_column = next((c for c in table.columns if c.lower() in _MASK_COLUMNS), None)
    several = [] if label_column or mask_column else find_finding_columns(table, options.findings, [column])
    if several:
        shown = ", ".join(several[:8]) + (", ..." if len(several) > 8 else "")
        found.notes.append(f"{table.path.name}: {len(several)} columns read as findings: {shown}; --findings chooses")
    files = Files(folder)
    for number, row in enumerate(table.rows, start=2):
        image = files.find(row[column])
        if image is None:
            hint = "restore the file, or remove the row"
            raise InputError(f"row {number} names {row[column]!r}, which is not there", path=table.path, hint=hint)
        inside = image.is_relative_to(folder)
        place = image.relative_to(folder) if inside else Path(*image.parts[1:])
        case = RawCase([image], stem(image), (place.parent / stem(place)).as_posix())
        if several:
            case.label = row_findings(row, several, options.uncertain, options.unmentioned)
        else:
            label = row[label_column] if label_column else row[mask_column] if mask_column else ""
            case.label = parse_label(label.replace("\\", "/"), [folder])
        case.aliases = [row[column]]
        found.cases.append(case)
    if label_column is None and mask_column is None and not several:
        found.notes.append(f"{table.path.name}: no label column seen; name it with --label-column or --findings")
    listed = {case.images[0] for case in found.cases}
    spare = sum(is_image(path) and path not in listed for path in list_files(folder))
    masks = {case.label for case in found.cases if isinstance(case.label, Path)}
    if spare - len(masks) > 0:
        found.notes.append(f"{count(spare - len(masks), 'image file')} not listed in {table.path.name}, left out")
    return found
