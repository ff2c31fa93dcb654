"""Tables as CSV files that any reader splits right, and that a spreadsheet takes for text and numbers, never a formula.

A text cell that begins as a formula does (``=``, ``+``, ``-``, ``@``, tab, carriage return) gets an apostrophe before
it, which ``read_table`` takes off again; numbers stay numbers.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.files import atomic_path

__all__ = ["plain_cell", "read_table", "safe_cell", "write_table"]

_FORMULA = re.compile(r"^'*[=+\-@\t\r]")
_MARKED = re.compile(r"^'+[=+\-@\t\r]")


def safe_cell(value: Any) -> Any:
    """A value as it may stand in a cell: text that a spreadsheet would run is marked, NaN and ``None`` are empty.

    >>> safe_cell("=1+1"), safe_cell("-0.5"), safe_cell(-0.5), safe_cell("liver")
    ("'=1+1", '-0.5', -0.5, 'liver')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value):
        return f"'{value}"
    return value


def plain_cell(text: str) -> str:
    """What ``safe_cell`` was given, of the text in a cell.

    >>> plain_cell("'=1+1"), plain_cell("it's")
    ('=1+1', "it's")
    """
    return text[1:] if _MARKED.match(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_table(path: str | Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write rows as CSV, atomically.

    Args:
        path: the file.
        rows: by column; what is missing is an empty cell.
        columns: their order; by default as they come in the rows.

    Raises:
        InputError: the file cannot be written.
    """
    names = list(columns or dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([safe_cell(name) for name in names])
        writer.writerows([safe_cell(row.get(name)) for name in names] for row in rows)


def read_table(path: str | Path) -> list[dict[str, str]]:
    """The rows of a table that ``write_table`` wrote, with the cells as they were before they were made safe.

    Raises:
        InputError: it cannot be read as such.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as stream:
            reader = csv.reader(stream)
            names = [plain_cell(name) for name in next(reader, [])]
            return [dict(zip(names, map(plain_cell, cells), strict=True)) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise InputError(
            f"not a readable table ({type(error).__name__})", path=path, hint="save it as CSV in UTF-8"
        ) from error
