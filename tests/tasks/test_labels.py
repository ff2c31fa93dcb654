"""What may stand as the label of a case."""

from __future__ import annotations

import pytest

from monai_transfer.tasks.labels import CLASS, MASK, NONE, NUMBER

NAMES = {"well": 0, "sick": 1}


@pytest.mark.parametrize(
    ("kind", "label", "words"),
    [
        (CLASS, "sik", "did you mean 'sick'"),
        (CLASS, "1", "without quotes: 1"),
        (CLASS, 2, "classes are 0 to 1"),
        (NUMBER, "3", "not a finite number"),
        (NUMBER, float("inf"), "not a finite number"),
        (MASK, 3, "not a path"),
        (MASK, "", "not a path"),
    ],
)
def test_a_wrong_label_is_named_with_the_fix(kind, label, words):
    assert words in "; ".join(kind.fault(label, NAMES))


@pytest.mark.parametrize(("kind", "label"), [(CLASS, "sick"), (CLASS, 1), (NUMBER, 3), (MASK, "a.nii"), (NONE, 1)])
def test_a_right_label_passes(kind, label):
    assert kind.fault(label, NAMES) is None


def test_splits_balance_quantities_by_quarters_and_masks_by_being_there():
    assert NUMBER.strata([1.0, 2.0, 3.0, 4.0, None]) == [0, 1, 2, 3, None]
    assert MASK.strata(["a.nii", None]) == [True, False]
    assert CLASS.strata([1, None, 0]) == [1, None, 0]
