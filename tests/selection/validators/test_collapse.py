"""The alarm rings when predictions become constant or a class vanishes, and is silent otherwise."""

from __future__ import annotations

import numpy as np

from monai_transfer.selection.validators import PredictionSummary, collapse


def sure(classes, k=3):
    return (
        0.94 * np.eye(k)[classes]
        + 0.06 / k
        + 0.02 * np.random.default_rng(0).dirichlet(np.ones(k), len(classes))
        - 0.02 / k
    )


def probabilities(classes, k=3):
    p = np.abs(sure(classes, k))
    return p / p.sum(1, keepdims=True)


def test_healthy_predictions_raise_no_alarm():
    assert not collapse(probabilities(np.arange(60) % 3))
    volumes = PredictionSummary()
    for case in range(4):
        v = np.zeros((2, 6, 6, 6))
        v[1, : case + 1] = 0.9
        v[0] = 1 - v[1]
        volumes.update(v[None])
    assert not collapse(volumes)


def test_one_class_for_every_case_is_a_collapse():
    found = collapse(probabilities(np.full(30, 1)), class_names=["normal", "lesion", "other"])
    assert found.constant
    assert found.vanished == (0, 2)
    assert found.messages == ("predictions have collapsed: every case (30 cases) is called lesion",)


def test_the_same_probabilities_for_every_case_are_a_collapse():
    undecided = np.full((20, 2), 0.5) + 1e-5 * np.random.default_rng(0).standard_normal((20, 1)) * [1, -1]
    assert collapse(undecided).constant
    assert (
        "same probabilities" in collapse(undecided).messages[-1]
        or "same probabilities" in collapse(undecided).messages[0]
    )


def test_a_vanished_class_is_named():
    found = collapse(probabilities(np.arange(60) % 2))
    assert not found.constant
    assert found.vanished == (2,)
    assert found.messages == ("class 2 is never predicted in 60 cases",)
    assert not collapse(probabilities(np.arange(6) % 2))  # six cases may well lack a class


def test_expected_shares_catch_what_has_nearly_vanished():
    p = probabilities(np.array([2] + [0, 1] * 50))
    assert not collapse(p)
    assert collapse(p, expected=[0.3, 0.3, 0.4]).vanished == (2,)
    assert "hardly ever" in collapse(p, expected=[0.3, 0.3, 0.4]).messages[0]
    assert not collapse(p, expected=[0.5, 0.49, 0.01])


def test_foreground_that_vanishes_from_all_volumes_rings():
    volumes = PredictionSummary()
    for case in range(3):
        foreground = np.random.default_rng(case).uniform(0, 0.3, (5, 5, 5))
        volumes.update(np.stack([1 - foreground, foreground])[None])
    found = collapse(volumes)
    assert found.constant
    assert "every voxel of every volume" in found.messages[0]
