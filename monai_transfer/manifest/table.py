"""CSV and TSV tables: finding the columns that are meant, and joining them to cases by name."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.manifest.checks import closest
from monai_transfer.manifest.layouts.base import RawCase, count, is_image, split_name, stem

__all__ = ["USUAL", "Table", "case_column", "find_columns", "join", "parse_label"]

USUAL = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img"),
        "image_index",
    ),
    "case": ("case", "case_id", "caseid", "id", "image_id", "name", "subject", "participant_id"),
    "patient": ("patient", "patient_id", "patientid", "pid", "subject", "subject_id", "participant_id"),
    "site": ("site", "centre", "center", "hospital", "institution", "scanner", "vendor", "domain"),
    "label": ("label", "labels", "class", "diagnosis", "target", "finding", "finding_labels", "findings", "y"),
    "split": ("split", "fold_name", "set", "subset", "partition"),
    "acquired": ("acquired", "day", "order"),
    "annotated": ("annotated", "annotated_classes"),
}
"""Column names that are understood without being named on the command line, by meaning."""

_MISSING = {"", "na", "n/a", "nan", "null"}


@dataclass
class Table:
    """A table as text: its file, column names and rows (by column name).

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "patients.csv"
    >>> _ = path.write_text(chr(10).join(["image;Patient ID;diagnosis", "a.png;7;well"]))
    >>> table = Table.read(path)
    >>> table.column("patient"), table.rows[0]["diagnosis"]
    ('Patient ID', 'well')
    """

    path: Path
    columns: list[str]
    rows: list[dict[str, str]]

    @classmethod
    def read(cls, path: str | Path) -> Table:
        """Read a CSV (comma or semicolon) or TSV file with a header line.

        Raises:
            InputError: not there, not text, no header, or a row of another length than the header.
        """
        path = Path(path)
        try:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                header = stream.readline()
                stream.seek(0)
                delimiter = max(",;\t", key=header.count)
                lines = [row for row in csv.reader(stream, delimiter=delimiter) if any(cell.strip() for cell in row)]
        except FileNotFoundError:
            raise InputError("no such table", path=path, hint="give a CSV or TSV file") from None
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(
                f"cannot be read as a table ({error})", path=path, hint="save it as CSV in UTF-8"
            ) from None
        columns = [cell.strip() for cell in lines[0]] if lines else []
        if not columns or len(set(columns)) < len(columns):
            hint = "name every column in the first line, each once"
            raise InputError("needs a header line with different column names", path=path, hint=hint)
        for number, row in enumerate(lines[1:], start=2):
            if len(row) != len(columns):
                fault = f"row {number} has {len(row)} cells where the header has {len(columns)}"
                raise InputError(fault, path=path, hint="put cells that hold the separator into quotation marks")
        return cls(path, columns, [dict(zip(columns, map(str.strip, row), strict=True)) for row in lines[1:]])

    def column(self, meaning: str, name: str | None = None) -> str | None:
        """The column with a meaning (see ``USUAL``), or the one called ``name``; ``None`` where there is none.

        Raises:
            InputError: ``name`` is given and no column is called so.
        """
        lowered = {column.lower().replace(" ", "_"): column for column in self.columns}
        if name is not None:
            if name not in self.columns and name.lower().replace(" ", "_") not in lowered:
                raise InputError(f"has no column {name!r}", path=self.path, hint=closest(name, self.columns))
            return name if name in self.columns else lowered[name.lower().replace(" ", "_")]
        return next((lowered[usual] for usual in USUAL[meaning] if usual in lowered), None)


def parse_label(text: str, folders: Iterable[Path] = ()) -> Path | str | int | float | None:
    """A label cell: a mask's path where it names a file in one of ``folders``, else a number, else a class name.

    ``None`` where it is empty or like ``NA``.
    """
    if text.lower() in _MISSING:
        return None
    for folder in folders:
        if is_image(folder / text) and (folder / text).is_file():
            return folder / text
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        return None if math.isnan(number) else text
    return int(number) if number == int(number) and "e" not in text.lower() else number


def find_columns(table: Table, names: dict[str, str | None], without: Sequence[str] = ()) -> dict[str, str]:
    """The table's columns by meaning (patient, site, label, split, acquired, annotated), by usual names or ``names``.

    Raises:
        InputError: a column that is named is not there.
    """
    case = case_column(table, names)
    found = {}
    for meaning in ("patient", "site", "label", "split", "acquired", "annotated"):
        column = None if meaning in without else table.column(meaning, names.get(meaning))
        # One column (such as `subject`) may serve as case and patient; it is then no news unless asked for.
        if column is not None and (column != case or names.get(meaning)):
            found[meaning] = column
    return found


def case_column(table: Table, names: dict[str, str | None]) -> str:
    """The column that names the case: by its path where there is one, unless another is asked for.

    Raises:
        InputError: there is none.
    """
    asked = table.column("case", names["case"]) if names.get("case") else None
    column = asked or table.column("path", names.get("path")) or table.column("case") or table.column("patient")
    if column is None:
        raise InputError("has no column that names the case", path=table.path, hint="name it with --case-column")
    return column


def join(
    cases: Sequence[RawCase],
    table: Table,
    folders: Sequence[Path],
    column: str,
    columns: dict[str, str],
    notes: list[str],
    findings: Callable[[dict[str, str]], dict[str, int | None] | None] | None = None,
) -> None:
    """Copy patient, site, label, split and order from a table's rows to the cases that they name, in place.

    A row names a case by its key, its file name or its path below one of ``folders``, with or without suffix; one row
    may serve several cases of one name. ``column`` names the case, ``columns`` gives the others by meaning, and
    ``findings`` a row's findings, which are the label.

    Raises:
        InputError: no row fits, rows contradict each other, or a cell is no split or relative day.
    """
    index: dict[str, list[RawCase]] = {}
    for case in cases:
        paths = [p.relative_to(f) for p in case.images for f in folders if p.is_relative_to(f)]
        for alias in {case.key, case.place, *case.aliases, *(p.as_posix() for p in paths), *(p.name for p in paths)}:
            index.setdefault(alias, []).append(case)
    matched: dict[int, dict[str, Any]] = {}
    spare = []  # by row number, since a name may identify a patient
    for number, row in enumerate(table.rows, start=2):
        name = row[column].removeprefix("./")
        hits = index.get(name) or index.get(stem(name)) or []
        if not hits:
            spare.append(str(number))
        for case in hits:
            values: dict[str, Any] = {meaning: row[source] for meaning, source in columns.items()}
            found = findings(row) if findings else None
            if matched.setdefault(id(case), values | {"findings": found}) != values | {"findings": found}:
                hint = "leave one row for each case, or name cases by another column with --case-column"
                raise InputError(f"row {number} contradicts another row of its case", path=table.path, hint=hint)
            _apply(case, values, table, folders)
            if findings:
                case.label = found
    if not matched:
        known = ", ".join(case.key for case in cases[:3])
        hint = f"cases here are called {known}; name the right column with --case-column"
        raise InputError(f"column {column!r} names none of the cases", path=table.path, hint=hint)
    if spare:
        shown = ", ".join(spare[:3]) + (", ..." if len(spare) > 3 else "")
        notes.append(f"{table.path.name}: {count(len(spare), 'row')} named no case here (row {shown})")
    alone = [case.key for case in cases if id(case) not in matched]
    if alone:
        notes.append(f"{table.path.name}: has no row for {count(len(alone), 'case')}: {', '.join(alone[:3])}")


def _apply(case: RawCase, values: dict[str, str], table: Table, folders: Sequence[Path]) -> None:
    for meaning, text in values.items():
        if meaning == "label":
            case.label = parse_label(text, (*folders, table.path.parent))
        elif meaning == "split" and text:
            case.split = split_name(text)
            if case.split is None:
                hint = "call splits training, validation, test or unlabeled"
                raise InputError(f"{case.key}: no split is called {text!r}", path=table.path, hint=hint)
        elif meaning == "acquired" and text:
            try:
                case.acquired = float(text)
            except ValueError:
                hint = "give days since the first image or an order, never a calendar date"
                raise InputError(f"{case.key}: {text!r} is no relative day", path=table.path, hint=hint) from None
        elif meaning == "annotated" and text:
            case.annotated = [name.strip() for name in re.split(r"[|;]", text) if name.strip()]
        elif text:
            setattr(case, meaning, text)
