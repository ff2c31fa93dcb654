"""The table at the top of the page is read off the sections below it."""

from __future__ import annotations

import re

import pytest

from tests.truth_table_page import HOME, KIND, PAGE, SCORE, rows_of, short

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


@pytest.mark.parametrize("name", SECTIONS)
def test_a_row_at_the_top_is_its_sections(name):
    [line] = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {name}")]
    _, untouched, longer, control, default, best, home, _ = (
        cell.strip().replace("*", "") for cell in line.split("|")[1:-1]
    )
    rows = rows_of(SECTIONS[name])
    assert untouched == short(rows["untouched source"][SCORE])
    assert longer == short(rows["source_longer"][SCORE]) and control == short(rows["target_statistics"][SCORE])
    value, word = re.fullmatch(r"(\.\d{3}) \((.*)\)", default).groups()
    method = NAMES.get(word, word.lower())
    assert value == short(rows[method][SCORE])
    others = {key: short(row[SCORE]) for key, row in rows.items() if row[KIND] == "no target labels"}
    others.pop(method)
    word, value = best.rsplit(" ", 1)
    assert others[NAMES.get(word, word.lower())] == value == max(others.values())
    if home != "not measured":
        assert home == f"{short(rows['untouched source'][HOME])}, {short(rows[method][HOME])}"
