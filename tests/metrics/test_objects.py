"""Objects: matching by hand, and pooled scores."""

from __future__ import annotations

import numpy as np
import pytest

from monai_transfer.evaluation.summary import summarise
from monai_transfer.metrics.masks import segmentation_case
from monai_transfer.metrics.objects import count_objects


def blocks(*places):
    mask = np.zeros((20, 20), dtype=bool)
    for rows, columns in places:
        mask[slice(*rows), slice(*columns)] = True
    return mask


A, B, C = ((0, 4), (0, 4)), ((8, 12), (8, 12)), ((16, 20), (0, 4))


def test_found_missed_and_invented():
    assert count_objects(blocks(A, C), blocks(A, B)) == (2, 2, 1)
    assert count_objects(blocks(), blocks(A, B)) == (2, 0, 0)
    assert count_objects(blocks(A), blocks()) == (0, 1, 0)


def test_each_object_is_matched_once():
    over_both = blocks(((0, 12), (0, 12)))  # one blob over two true objects finds one of them
    assert count_objects(over_both, blocks(A, B), iou=0.05) == (2, 1, 1)
    halves = blocks(((0, 2), (0, 4)), ((3, 4), (0, 4)))  # two pieces of one true object
    assert count_objects(halves, blocks(A), iou=0.2) == (1, 2, 1)


def test_the_overlap_that_is_asked_for():
    shifted = blocks(((0, 4), (2, 6)))  # IoU 8 / 24
    assert count_objects(shifted, blocks(A), iou=0.3).found == 1
    assert count_objects(shifted, blocks(A), iou=0.4).found == 0


def test_diagonal_neighbours_are_one_object():
    assert count_objects(blocks(), np.eye(4, dtype=bool)).true == 1


def test_scores_of_a_set_are_of_all_objects_with_intervals_over_patients():
    pairs = [((A, B), (A, B)), ((A,), (A, B)), ((A, C), (A,)), ((), ())]  # predicted, true
    rows = [
        {"case": f"{i}{k}", "patient": f"{i}{k}"}
        | segmentation_case(blocks(*p).astype(int), blocks(*t).astype(int), {0: "b", 1: "nucleus"}, (1, 1), unit="px")
        for k in range(5)
        for i, (p, t) in enumerate(pairs)
    ]
    found = summarise(rows, "segmentation")
    assert found["object_sensitivity_nucleus"].mean == pytest.approx(4 / 5)
    assert found["object_precision_nucleus"].mean == pytest.approx(4 / 5)
    assert found["object_f1"].mean == pytest.approx(8 / 10)
    assert found["object_f1"].low < 0.8 < found["object_f1"].high <= 1
    assert not [name for name in found if name.startswith("objects_")], "counts are no metrics"
