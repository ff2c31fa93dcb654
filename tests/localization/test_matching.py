import numpy as np
import pytest

from monai_transfer.errors import InputError
from monai_transfer.localization import Boxes, match_boxes
from monai_transfer.localization.matching import iou_matrix, pointing_game


def boxes(rows, scores=None, labels=None):
    rows = np.array(rows, dtype=np.int64).reshape(len(rows), -1) if len(rows) else np.zeros((0, 4), dtype=np.int64)
    n = len(rows)
    scores = np.ones(n) if scores is None else np.array(scores, dtype=float)
    labels = np.ones(n, dtype=np.int64) if labels is None else np.array(labels)
    return Boxes(rows, scores, labels, np.ones(n))


def test_iou_written_out():
    # 4 x 4 and 4 x 4, shifted by 2 along one axis: 8 / 24; in 3D shifted along all three: 8 / (64 + 64 - 8)
    assert iou_matrix([[0, 0, 4, 4]], [[2, 0, 6, 4], [8, 8, 9, 9]])[0] == pytest.approx([1 / 3, 0])
    assert iou_matrix([[0, 0, 0, 4, 4, 4]], [[2, 2, 2, 6, 6, 6]])[0, 0] == pytest.approx(1 / 15)
    assert iou_matrix([], [[0, 0, 1, 1]]).shape == (0, 1)


def test_each_lesion_is_found_once_by_the_surest():
    truth = boxes([[0, 0, 4, 4], [10, 10, 14, 14]])
    found = boxes([[0, 0, 4, 5], [1, 0, 4, 4], [20, 20, 22, 22]], [0.6, 0.9, 0.7])
    match = match_boxes(found, truth)
    assert match.lesion_scores[0] == 0.9 and np.isnan(match.lesion_scores[1])
    assert match.lesion_ious == pytest.approx([12 / 16, 0])
    assert match.extra_scores.tolist() == [0.6] and match.false_scores.tolist() == [0.7]


def test_a_second_box_takes_the_lesion_that_is_still_free():
    truth = boxes([[0, 0, 4, 4], [3, 0, 7, 4]])
    found = boxes([[0, 0, 4, 4], [1, 0, 5, 4]], [0.9, 0.8])
    match = match_boxes(found, truth)  # the second overlaps the first lesion more, but that one is taken
    assert match.lesion_scores.tolist() == [0.9, 0.8]
    assert match.lesion_ious == pytest.approx([1, 2 * 4 / (16 + 16 - 8)])


def test_the_iou_limit_and_the_class():
    truth, found = boxes([[0, 0, 4, 4]]), boxes([[2, 0, 6, 4]], [0.5])
    assert match_boxes(found, truth, 1 / 3).lesion_scores.tolist() == [0.5]
    assert match_boxes(found, truth, 0.34).false_scores.tolist() == [0.5]
    other = match_boxes(boxes([[0, 0, 4, 4]], [0.5], [2]), truth)
    assert np.isnan(other.lesion_scores).all() and other.false_scores.tolist() == [0.5]
    with pytest.raises(InputError, match="IoU"):
        match_boxes(found, truth, 0)


def test_no_lesion_makes_every_box_false_and_no_box_misses_every_lesion():
    healthy = match_boxes(boxes([[0, 0, 2, 2]], [0.4]), boxes([]))
    assert healthy.lesion_scores.shape == (0,) and healthy.false_scores.tolist() == [0.4]
    silent = match_boxes(boxes([]), boxes([[0, 0, 2, 2]]))
    assert np.isnan(silent.lesion_scores).all() and silent.false_scores.shape == (0,)


def test_pointing_game():
    heat, truth = np.zeros((6, 6)), np.zeros((6, 6))
    heat[2, 3], truth[2:4, 3] = 1.0, 1
    assert pointing_game(heat, truth) == 1
    heat[0, 0] = 2.0
    assert pointing_game(heat, truth) == 0
    assert pointing_game(heat, truth, margin=2) == 0 and pointing_game(heat, truth, margin=3) == 1
    assert np.isnan(pointing_game(heat, np.zeros((6, 6))))
    with pytest.raises(InputError, match="shape"):
        pointing_game(heat, truth[1:])
    with pytest.raises(InputError, match="NaN"):
        pointing_game(heat * np.nan, truth)
