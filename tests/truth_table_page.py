"""The rows of ``docs/truth_table.md``, for tests that hold other words against it."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "truth_table.md"
METHOD, KIND, SCORE, HOME = 0, 1, 2, 6
"""Columns of a table with the price at home."""


def rows_of(section: str) -> dict[str, list[str]]:
    """The cells of a section's rows by method."""
    text = PAGE.read_text(encoding="utf-8").partition(f"<!-- truth table: {section} -->")[2].partition("<!-- end of")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return {row[METHOD]: row for row in cells}


def short(cell: str) -> str:
    """.618 of ``0.618 (0.5 to 0.7)``."""
    found = re.match(r"0(\.\d{3})", cell)
    assert found, cell
    return found[1]
