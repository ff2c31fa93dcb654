"""What a classifier said about one case, and the ranking of many."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from monai_transfer.errors import InputError
from monai_transfer.metrics.classes import binary_auc, classification_case


def test_classification_of_one_case():
    row = classification_case(torch.tensor([0.25, 0.75]), 0, ["normal", "lesion"])
    assert (row["label"], row["prediction"], row["correct"]) == ("normal", "lesion", 0)
    assert row["log_loss"] == pytest.approx(-math.log(0.25))
    assert row["p_lesion"] == 0.75
    certain = classification_case([1.0, 0.0], 1, ["normal", "lesion"])
    assert certain["log_loss"] == pytest.approx(-math.log(1e-7)), "finite"
    unknown = classification_case([0.5, 0.5], None, ["normal", "lesion"])
    assert unknown["label"] == ""
    assert math.isnan(unknown["correct"])


@pytest.mark.parametrize(
    ("p", "label", "match"),
    [([0.5, np.nan], 0, "NaN"), ([2.0, 3.0], 0, "sums to"), ([0.5, 0.5], 2, "label 2"), ([1.0], 0, "1 classes")],
)
def test_bad_probabilities_are_refused(p, label, match):
    with pytest.raises(InputError, match=match):
        classification_case(p, label, ["normal", "lesion"])


def test_many_resamples_are_ranked_a_piece_at_a_time():
    rng = np.random.default_rng(0)
    score, truth = rng.random(3000).round(2), rng.integers(0, 2, 3000) > 0
    weights = rng.integers(0, 3, (1500, 3000)).astype(float)
    got = binary_auc(score, truth, weights)
    assert len(got) == 1500
    for i in (0, 700, 1499):
        assert got[i] == pytest.approx(roc_auc_score(truth, score, sample_weight=weights[i]))
