"""The table at the top of the page is read off the sections below it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "truth_table.md"
SECTIONS = {
    "embedded segmentation, plainly": "head_mr_segmentation_400",
    "embedded segmentation, `randomised`": "head_mr_segmentation_randomised_400",
    "hippocampus, plainly": "hippocampus_400",
    "hippocampus, `randomised`": "hippocampus_randomised_400",
    "nuclei, `randomised_all`": "nuclei_randomised_400",
    "nuclei, plainly": "nuclei_400",
    "embedded classification, plainly": "head_mr_slice_classification_400",
    "embedded classification, `randomised`": "head_mr_slice_classification_randomised_400",
}
NAMES = {"self-training": "self_training", "mean teacher": "mean_teacher"}


def rows_of(section: str) -> dict[str, list[str]]:
    """The cells of a section's rows by method."""
    text = PAGE.read_text(encoding="utf-8").partition(f"<!-- truth table: {section} -->")[2].partition("<!-- end of")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row for row in cells}


def short(cell: str) -> str:
    """.618 of ``0.618 (0.5 to 0.7)``."""
    found = re.match(r"0(\.\d{3})", cell)
    assert found, cell
    return found[1]


@pytest.mark.parametrize("name", SECTIONS)
def test_a_row_at_the_top_is_its_sections(name):
    [line] = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {name}")]
    _, untouched, longer, control, default, best, home, _ = (
        cell.strip().replace("*", "") for cell in line.split("|")[1:-1]
    )
    rows = rows_of(SECTIONS[name])
    assert untouched == short(rows["untouched source"][2])
    assert longer == short(rows["source_longer"][2]) and control == short(rows["target_statistics"][2])
    value, word = re.fullmatch(r"(\.\d{3}) \((.*)\)", default).groups()
    method = NAMES.get(word, word.lower())
    assert value == short(rows[method][2])
    others = {key: short(row[2]) for key, row in rows.items() if len(row) > 2 and row[1] == "no target labels"}
    others.pop(method)
    word, value = best.rsplit(" ", 1)
    assert others[NAMES.get(word, word.lower())] == value == max(others.values())
    if home != "not measured":
        assert home == f"{short(rows['untouched source'][6])}, {short(rows[method][6])}"
