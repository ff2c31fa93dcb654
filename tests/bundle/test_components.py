"""What adapts by default, and that the reason's numbers are those of the page."""

from __future__ import annotations

import re

from monai_transfer.bundle.components import SELF_TRAINING_PRICE, default_method
from monai_transfer.tasks import get_task
from tests.truth_table_page import HOME, SCORE, rows_of, short


def test_the_price_of_the_default_is_the_tables():
    expected = []
    for section in ("head_mr_segmentation_400", "hippocampus_400"):
        adapted, source = (rows_of(section)[name] for name in ("self_training", "untouched source"))
        expected += [short(row[column]) for column in (SCORE, HOME) for row in (adapted, source)]
    assert re.findall(r"(?<!\d)\.\d{3}", SELF_TRAINING_PRICE) == expected


def test_the_default_says_its_price():
    method, reason = default_method(get_task("segmentation"))
    assert method == "self_training" and reason.endswith(SELF_TRAINING_PRICE)
