"""What adapts by default, and that the reason's numbers are those of the page."""

from __future__ import annotations

import re
from pathlib import Path

from monai_transfer.bundle.components import SELF_TRAINING_PRICE, default_method
from monai_transfer.tasks import get_task

PAGE = Path(__file__).parents[2] / "docs" / "truth_table.md"


def test_the_price_of_the_default_is_the_tables():
    page = PAGE.read_text(encoding="utf-8")
    found = {}
    for name in ("head_mr_segmentation_400", "hippocampus_400"):
        section = page.partition(f"<!-- truth table: {name} -->")[2].partition("<!-- end of")[0]
        rows = {row.split(" | ")[0].removeprefix("| "): row.split(" | ") for row in section.splitlines()}
        found[name] = [rows["self_training"][2], rows["untouched source"][2], rows["self_training"][6]]
        found[name].append(rows["untouched source"][6])
    embedded, hippocampus = ([cell[1:5] for cell in row] for row in found.values())
    assert re.findall(r"(?<!\d)\.\d{3}", SELF_TRAINING_PRICE) == [*embedded, *hippocampus]


def test_the_default_says_its_price():
    method, reason = default_method(get_task("segmentation"))
    assert method == "self_training" and reason.endswith(SELF_TRAINING_PRICE)
