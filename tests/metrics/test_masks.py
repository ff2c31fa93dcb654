"""Per-case metrics: golden cases by hand, missing against wrong, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from monai_transfer.errors import InputError
from monai_transfer.metrics.masks import MASK_METRICS, MaskPair, segmentation_case

LABELS = {"0": "background", "1": "core", "2": "rim"}
SPACING = (1.0, 2.0, 3.0)
DIAGONAL = math.sqrt(10**2 + 24**2 + 24**2)


def box(*slices, value=1):
    array = np.zeros((10, 12, 8), dtype=np.int64)
    array[slices] = value
    return array


BOX = box(slice(2, 6), slice(3, 7), slice(2, 5))


def test_a_perfect_prediction():
    values = segmentation_case(torch.from_numpy(BOX)[None], BOX, LABELS, SPACING)
    assert (values["dice"], values["surface_dice"], values["hd95"]) == (1, 1, 0)
    assert values["volume_true_ml_core"] == pytest.approx(4 * 4 * 3 * 6 / 1000)
    assert math.isnan(values["dice_rim"]), "absent in truth and prediction: missing"
    assert values["false_positive_rim"] == 0


def test_a_shifted_box_by_hand():
    moved = box(slice(2, 6), slice(4, 8), slice(2, 5))  # by one voxel of 2 mm along the second axis
    values = segmentation_case(moved, BOX, LABELS, SPACING, tolerance=1.9)
    assert values["dice_core"] == pytest.approx(2 * 4 * 3 * 3 / (2 * 4 * 4 * 3))
    assert values["hd95_core"] == pytest.approx(2.0)
    assert segmentation_case(moved, BOX, LABELS, SPACING, tolerance=2.0)["surface_dice_core"] == 1
    assert values["surface_dice_core"] < 1


def test_distances_agree_with_an_independent_computation():
    rng = np.random.default_rng(1)
    blobs = [ndimage.gaussian_filter(rng.standard_normal((20, 22, 18)), 3) > 0.02 for _ in range(2)]
    edges = [b & ~ndimage.binary_erosion(b) for b in blobs]
    far = [
        ndimage.distance_transform_edt(~edges[1 - i], sampling=SPACING)[edges[i]] for i in range(2)
    ]  # each surface to the other
    values = segmentation_case(*[b.astype(int) for b in blobs], {0: "b", 1: "core"}, SPACING)
    assert values["hd95_core"] == pytest.approx(max(np.percentile(d, 95) for d in far), rel=1e-4)
    agree = sum((d <= 2.0).sum() for d in far) / sum(len(d) for d in far)
    assert values["surface_dice_core"] == pytest.approx(agree, rel=1e-4)


@pytest.mark.parametrize("swap", [False, True])
def test_missed_and_invented_structures_count_as_wrong(swap):
    pair = (BOX, np.zeros_like(BOX)) if not swap else (np.zeros_like(BOX), BOX)
    values = segmentation_case(*pair, LABELS, SPACING)
    assert (values["dice"], values["surface_dice"]) == (0, 0)
    assert values["hd95"] == pytest.approx(DIAGONAL)
    assert values["false_positive_core"] == (0 if swap else 1)


def test_a_false_positive_of_one_class_lowers_the_mean():
    extra = BOX.copy()
    extra[9, 11, 7] = 2
    assert segmentation_case(extra, BOX, LABELS, SPACING)["dice"] == 0.5


def test_nothing_anywhere_is_missing():
    values = segmentation_case(np.zeros((4, 4), int), np.zeros((4, 4), int), LABELS, (1, 1))
    assert math.isnan(values["dice"])
    assert math.isnan(values["hd95"])


def test_two_dimensions_and_one_voxel():
    one = np.zeros((5, 6), int)
    one[2, 3] = 1
    other = np.roll(one, 2, axis=1)
    values = segmentation_case(other, one, {0: "b", 1: "x"}, (0.5, 0.5))
    assert values["hd95_x"] == pytest.approx(1.0)
    assert values["area_true_mm2_x"] == 0.25


@pytest.mark.parametrize(
    ("prediction", "match"),
    [
        (np.where(BOX > 0, np.nan, 0.0), "NaN"),
        (BOX * 0.5, "label 0.5"),
        (BOX * 7, "label 7"),
        (BOX[:5], "shape"),
        (BOX[0], "axes"),
    ],
)
def test_bad_predictions_are_refused(prediction, match):
    with pytest.raises(InputError, match=match):
        segmentation_case(prediction, BOX, LABELS, SPACING)


def test_a_bad_spacing_is_refused():
    with pytest.raises(InputError, match="spacing"):
        segmentation_case(BOX, BOX, LABELS, (1, 0, 1))


def test_surfaces_agree_with_monai():
    rng = np.random.default_rng(4)
    p, t = (ndimage.gaussian_filter(rng.standard_normal((16, 18, 14)), 2.5) > 0.02 for _ in range(2))
    values = segmentation_case(p.astype(int), t.astype(int), {0: "b", 1: "core"}, SPACING, tolerance={"core": 3.0})
    y = [torch.from_numpy(m)[None, None].float() for m in (p, t)]
    given = {"include_background": True, "spacing": list(SPACING)}
    assert values["hd95_core"] == pytest.approx(float(compute_hausdorff_distance(*y, percentile=95, **given)), rel=1e-5)
    mean = compute_average_surface_distance(*y, symmetric=True, **given)
    assert values["assd_core"] == values["assd"] == pytest.approx(float(mean), rel=1e-5)
    assert values["surface_dice_core"] == pytest.approx(float(compute_surface_dice(*y, [3.0], **given)), rel=1e-5)


def test_a_tolerance_of_each_class():
    moved = np.roll(BOX, 1, axis=1)  # 2 mm
    both = {0: "b", 1: "core"}
    assert segmentation_case(moved, BOX, both, SPACING, tolerance={"core": 1.0})["surface_dice_core"] < 1
    assert segmentation_case(moved, BOX, both, SPACING, tolerance={"other": 1.0})["surface_dice_core"] == 1, "2 mm"


def test_volumes_and_their_error():
    grown = BOX.copy()
    grown[6, 3:7, 2:5] = 1
    values = segmentation_case(grown, BOX, LABELS, SPACING)
    assert values["volume_pred_ml_core"] == pytest.approx(60 * 6 / 1000)
    assert values["volume_error_ml_core"] == pytest.approx(12 * 6 / 1000)
    assert values["volume_error_ml_rim"] == 0, "rightly nothing"


def test_pictures_without_a_physical_size_are_measured_in_pixels():
    one = np.zeros((9, 9), int)
    one[2:5, 2:5] = 1
    values = segmentation_case(np.roll(one, 2, axis=1), one, {0: "b", 1: "x"}, (1, 1), unit="px")
    assert (values["hd95_x"], values["area_true_px_x"]) == (2.0, 9)
    assert not [name for name in values if "mm2" in name or "ml" in name]


def test_every_metric_says_what_it_is():
    for metric in MASK_METRICS.values():
        assert metric.title and metric.sentence.endswith(".") and metric.better in (-1, 0, 1), metric.name
    assert MASK_METRICS["hd95"].better == -1 and MASK_METRICS["dice"].better == 1
    assert MASK_METRICS["volume_pred_ml"].better == 0


def test_a_pair_knows_what_a_voxel_fills():
    pair = MaskPair(BOX > 0, BOX > 0, np.array(SPACING))
    assert pair.scale == pytest.approx(0.006) and pair.sizes == (48, 48)
    assert pair.diagonal == pytest.approx(DIAGONAL)
