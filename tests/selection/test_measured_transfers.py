"""Forecasts from measured transfers: nearest by the probe's advantage, each target judged by the others alone."""

from __future__ import annotations

import pytest

from monai_transfer.selection.measured_transfers import (
    MeasuredTransfer,
    forecast_gain,
    leave_one_target_out,
    measured_transfers,
)


def transfer(source, target, advantage, gain, task="segmentation"):
    return MeasuredTransfer(source, target, task, 4, 0.5 + advantage, 0.5, 1.0, 0.4, 0.3, 0.4 + gain, 3, "2026-11-29")


def test_a_forecast_is_the_mean_of_the_three_nearest_of_its_task():
    known = [
        transfer("a", "x", 0.00, -0.1), transfer("b", "x", 0.10, 0.1), transfer("c", "y", 0.12, 0.2),
        transfer("d", "y", 0.30, 0.3), transfer("e", "z", 0.11, 0.9, "classification"),
    ]  # fmt: skip
    found = forecast_gain("segmentation", 0.61, 0.5, transfers=known)
    assert found.nearest == ("b -> x", "c -> y", "a -> x")
    assert found.gain == pytest.approx(0.2 / 3)
    assert (found.low, found.high) == pytest.approx((-0.1, 0.2))
    # one classification alone: the nearest of all tasks
    assert "e -> z" in forecast_gain("classification", 0.61, 0.5, transfers=known).nearest


def test_a_target_foretells_nothing_about_itself():
    """Where the gain depends on the target alone, its own rows would foretell it perfectly, and others cannot."""
    known = [transfer(s, t, 0.1, gain) for t, gain in (("x", 0.3), ("y", 0.0), ("z", -0.3)) for s in ("a", "b", "c")]
    error, error_of_mean, right, pairs = leave_one_target_out(known)
    assert error == pytest.approx((0.45 + 0.0 + 0.45) / 3, abs=0.2)
    assert error > 0.2
    assert error_of_mean == pytest.approx((0.45 + 0.0 + 0.45) / 3)
    assert (right, pairs) == (0, 9)  # sources that are alike are no right order
    said = str(forecast_gain("segmentation", 0.6, 0.5, transfers=known))
    assert ("no guide" in said) == (error >= error_of_mean)


def test_where_the_advantage_tells_the_gain_the_forecast_is_a_guide():
    steps = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25]
    known = [transfer(f"s{i}", t, a, 2 * a) for t in "wxyz" for i, a in enumerate(steps)]
    found = forecast_gain("segmentation", 0.7, 0.5, transfers=known)
    assert found.is_guide
    assert found.gain == pytest.approx(0.4, abs=0.05)
    assert found.right == found.pairs == 4 * 15
    assert "no guide" not in str(found)
    assert found.to_dict()["is_guide"] is True


def test_one_target_is_not_enough():
    assert forecast_gain("segmentation", 0.7, 0.5, transfers=[transfer("a", "x", 0.1, 0.1)] * 4) is None


def test_the_shipped_table_was_measured():
    for one in measured_transfers():
        assert one.seeds >= 3
        assert -1 < one.gain < 1
        assert one.measured >= "2026-11-29"
    assert len({one.target for one in measured_transfers()}) >= 3
