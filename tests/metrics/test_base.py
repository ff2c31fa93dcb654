"""A metric described once: found by its column, with its class, cut to its own bounds."""

from __future__ import annotations

import math

from monai_transfer.metrics import BOX_METRICS, CLASS_METRICS, MASK_METRICS, VALUE_METRICS, find_metric


def test_the_longest_name_wins():
    assert find_metric(MASK_METRICS, "surface_dice_dice").full_name == "surface_dice_dice"
    assert find_metric(BOX_METRICS, "sensitivity_at_1").part == ""
    assert find_metric(BOX_METRICS, "sensitivity_small").heading == "sensitivity, small"
    assert find_metric(CLASS_METRICS, "recall_lesion").part == "lesion"


def test_units_stand_in_the_heading_and_follow_the_images():
    assert find_metric(MASK_METRICS, "hd95_liver").heading == "HD95 (mm), liver"
    assert find_metric(MASK_METRICS, "hd95").in_unit_of_length("px").heading == "HD95 (px)"
    assert find_metric(MASK_METRICS, "volume_pred_ml_liver").in_unit_of_length("px").unit == "ml"


def test_an_unknown_column_claims_nothing():
    found = find_metric(VALUE_METRICS, "luck")
    assert (found.direction, found.unit, found.clip(-5.0, 7.0)) == ("", "", (-5.0, 7.0))
    assert math.isnan(found.best) and math.isnan(found.worst)


def test_bounds_cut_only_where_there_are_some():
    assert MASK_METRICS["dice"].clip(-0.1, 1.2) == (0.0, 1.0)
    assert MASK_METRICS["volume_pred_ml"].clip(-1.0, 12.0) == (0.0, 12.0)
    assert VALUE_METRICS["r2"].clip(-3.0, 1.5) == (-3.0, 1.0)
    assert (MASK_METRICS["hd95"].best, MASK_METRICS["hd95"].worst) == (0.0, math.inf)
