"""The rules of ``auto``, on scores: few patients, enough patients, no labels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monai_transfer.selection.auto_rule import ORDER, by_cross_validation, by_fixed_rule, by_validators

TRAINED = ("head_only", "averaged", "joint_averaged", "joint", "fine_tuned", "scratch")


@pytest.mark.parametrize(
    ("level", "home", "arms", "taken"),
    [
        (0.8, math.nan, TRAINED, "joint_averaged"),
        (0.8, math.nan, ("head_only", "averaged", "joint", "fine_tuned", "scratch"), "joint"),  # an older bundle
        (0.0, 0.02, TRAINED, "scratch"),  # noise
        (0.6, -0.1, TRAINED, "scratch"),  # noise that ranks three patients by luck
        (0.6, 0.9, TRAINED, "joint_averaged"),
        (math.nan, math.nan, TRAINED, "joint_averaged"),  # an AUC of one class
        (0.8, math.nan, ("averaged", "fine_tuned", "scratch"), "averaged"),
        (0.3, math.nan, ("averaged", "fine_tuned", "scratch"), "averaged"),
        (math.nan, math.nan, ("fine_tuned", "scratch"), "fine_tuned"),
        (math.nan, math.nan, ("scratch",), "scratch"),
    ],
)
def test_few_patients(level, home, arms, taken):
    assert by_fixed_rule(level, arms, home=home, patients=3).taken == taken


def test_a_source_that_knows_nothing_of_two_patients_is_not_taken():
    """Of another organ, or of an inverted contrast: at home it is good."""
    told = by_fixed_rule(0.0, TRAINED, home=0.9, patients=3, telling=2)
    assert told.taken == "scratch" and "another organ" in told.reason
    assert by_fixed_rule(0.0, ("averaged", "fine_tuned", "scratch"), patients=2, telling=2).taken == "scratch"
    assert by_fixed_rule(0.0, TRAINED, home=0.9, patients=1, telling=2).taken == "joint_averaged", "one may be odd"
    assert by_fixed_rule(0.0, TRAINED, home=0.9, patients=6, telling=8).taken == "joint_averaged", (
        "a ranking of six is chance"
    )
    assert by_fixed_rule(0.3, TRAINED, home=0.9, patients=3, telling=2).taken == "joint_averaged"


def test_one_standard_error_in_favour_of_the_simpler():
    rng = np.random.default_rng(0)
    patients = [f"p{n}" for n in range(10)]
    hard = rng.normal(0.6, 0.15, 10)  # patients differ far more than arms do

    def scores(gain, noise=0.02):
        return dict(zip(patients, (hard + gain + rng.normal(0, noise, 10)).tolist(), strict=True))

    clear = by_cross_validation({"scratch": scores(-0.2), "joint": scores(0.1), "source": scores(0.0)})
    assert clear.taken == "joint" and "best mean" in clear.reason
    swinging = dict(zip(patients, hard + np.tile([0.05, -0.04], 5), strict=True))  # .005 better, +- .014
    near = by_cross_validation({"fine_tuned": swinging, "source": dict(zip(patients, hard, strict=True))})
    assert near.taken == "source" and near.rule == "cross-validation"
    noise = by_cross_validation({"source": scores(-0.5), "scratch": scores(0.0), "joint": scores(-0.1)})
    assert noise.taken == "scratch", "a source that hurts is not taken"
    with pytest.raises(ValueError):
        by_cross_validation({"source": {"a": math.nan}})


def test_simplicity_is_no_reason_to_take_an_arm_that_guesses():
    rng = np.random.default_rng(1)
    patients = [f"p{n}" for n in range(64)]

    def scores(mean, spread):
        drawn = rng.normal(0, spread, 64)
        return dict(zip(patients, mean + drawn - drawn.mean(), strict=True))

    poor = {"source": scores(0.55, 0.4), "fine_tuned": scores(0.59, 0.4), "scratch": scores(0.60, 0.4)}
    assert by_cross_validation(poor).taken == "source"
    found = by_cross_validation(poor, guess=0.5)
    assert found.taken == "scratch" and "not told apart from guessing: untouched source, fine-tuned" in found.reason
    sound = {"source": scores(0.80, 0.3), "scratch": scores(0.82, 0.3)}
    assert by_cross_validation(sound, guess=0.5).taken == "source"


def test_patients_without_a_value_are_left_out():
    found = by_cross_validation({"source": {"a": 0.5, "b": 0.9}, "joint": {"a": 0.8, "b": math.nan}})
    assert found.scores == {"source": 0.5, "joint": 0.8} and "1 labelled patients" in found.reason


def test_without_labels_all_validators_must_agree():
    source = {"entropy": -0.3, "information_maximisation": 0.2, "bnm": 0.7}
    better = {name: value + 0.1 for name, value in source.items()}
    assert by_validators({"source": source, "statistics": better}).taken == "statistics"
    assert by_validators({"source": source, "statistics": {**better, "bnm": 0.6}}).taken == "source"
    assert by_validators({"source": source, "statistics": better}, {"statistics": ["all one class"]}).taken == "source"
    assert by_validators({"source": source}).taken == "source"
    best = {name: value + 0.2 for name, value in source.items()}
    assert by_validators({"self_trained": best, "source": source, "statistics": better}).taken == "self_trained"


def test_the_order_is_of_all_arms_once():
    assert len(set(ORDER)) == len(ORDER) == 9
