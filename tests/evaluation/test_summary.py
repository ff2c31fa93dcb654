"""Summaries against scikit-learn, and intervals that respect patients."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from sklearn import metrics as oracle

from monai_transfer.errors import InputError
from monai_transfer.evaluation.summary import summarise
from monai_transfer.metrics import classification_case, regression_case
from monai_transfer.metrics.classes import roc_auc


def classified(n=60, classes=3, seed=0, per_patient=1):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    p = rng.dirichlet(np.ones(classes), n)
    p[np.arange(n), truth] += 0.4
    p = (p / p.sum(1, keepdims=True)).round(2)
    p[:, -1] = 1 - p[:, :-1].sum(1)
    names = [f"k{i}" for i in range(classes)]
    rows = [
        {"case": f"c{i}", "patient": f"p{i // per_patient}", **classification_case(p[i], int(truth[i]), names)}
        for i in range(n)
    ]
    return rows, truth, p


@pytest.mark.parametrize("classes", [2, 3])
def test_classification_agrees_with_scikit_learn(classes):
    rows, truth, p = classified(classes=classes)
    said = p.argmax(1)
    result = {name: value.mean for name, value in summarise(rows, "classification").items()}
    assert result["accuracy"] == pytest.approx(oracle.accuracy_score(truth, said))
    assert result["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(truth, said))
    score = p[:, 1] if classes == 2 else p
    assert result["auc"] == pytest.approx(oracle.roc_auc_score(truth, score, multi_class="ovr"))
    assert result["log_loss"] == pytest.approx(oracle.log_loss(truth, p, labels=range(classes)), rel=1e-6)
    for name, function in (
        ("precision", oracle.precision_score),
        ("recall", oracle.recall_score),
        ("f1", oracle.f1_score),
    ):
        assert result[name] == pytest.approx(function(truth, said, average="macro"))
        assert [result[f"{name}_k{i}"] for i in range(classes)] == pytest.approx(function(truth, said, average=None))


def test_a_class_that_is_never_predicted_or_never_true():
    names = ["a", "b", "c"]
    rows = [
        {"case": str(i), "patient": str(i), **classification_case(p, label, names)}
        for i, (p, label) in enumerate([([1, 0, 0], 0), ([1, 0, 0], 1), ([0, 0, 1], 0), ([1, 0, 0], 0)])
    ]
    truth, said = [0, 1, 0, 0], [0, 0, 2, 0]
    result = {name: value.mean for name, value in summarise(rows, "classification").items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert result["precision"] == pytest.approx(oracle.precision_score(truth, said, average="macro"))
        assert result["f1"] == pytest.approx(oracle.f1_score(truth, said, average="macro"))
        assert result["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(truth, said))


def test_draws_without_a_rare_class_tell_nothing_of_it():
    """Three of fifteen are ill and all are called ill: no draw of cases makes that better or worse than a guess."""
    names = ["ill", "well"]
    rows = [
        {"case": str(i), "patient": str(i), **classification_case([0.9, 0.1], int(i > 2), names)} for i in range(15)
    ]
    result = summarise(rows, "classification")
    for name, value in (("balanced_accuracy", 0.5), ("recall_ill", 1.0), ("recall_well", 0.0)):
        assert (result[name].mean, result[name].low, result[name].high) == (value, value, value), name
    alone = summarise(rows[3:], "classification")  # no ill case at all
    assert np.isnan(alone["balanced_accuracy"].mean) and np.isnan(alone["recall_ill"].mean)


def test_weighted_auc_is_the_auc_of_repeated_cases():
    rng = np.random.default_rng(3)
    truth, score = rng.integers(0, 2, 40), rng.random(40).round(1)
    weights = rng.integers(0, 4, (5, 40))
    got = roc_auc(np.stack([1 - score, score], 1), truth, weights)
    for w, value in zip(weights, got, strict=True):
        assert value == pytest.approx(oracle.roc_auc_score(truth, score, sample_weight=w))


def test_regression_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    y = rng.normal(100, 5, 30)
    guess = y + rng.normal(0, 2, 30)
    rows = [{"case": str(i), "patient": str(i), **regression_case(guess[i], y[i])} for i in range(30)]
    rows.append({"case": "x", "patient": "x", **regression_case(1.0, None)})
    result = summarise(rows, "regression")
    assert result["mae"].mean == pytest.approx(oracle.mean_absolute_error(y, guess))
    assert result["rmse"].mean == pytest.approx(oracle.root_mean_squared_error(y, guess))
    assert result["r2"].mean == pytest.approx(oracle.r2_score(y, guess))
    assert all(v.low < v.mean < v.high and v.n_patients == 30 for v in result.values())


def segmented(values, patients):
    return [
        {"case": str(i), "patient": p, "site": "", "dice": v}
        for i, (v, p) in enumerate(zip(values, patients, strict=True))
    ]


def test_missing_values_do_not_count_and_wrong_ones_do():
    result = summarise(segmented([1.0, math.nan, 0.0], "abc"), "segmentation")["dice"]
    assert result.mean == 0.5
    assert result.n_patients == 2
    empty = summarise(segmented([math.nan], "a"), "segmentation")["dice"]
    assert math.isnan(empty.mean)
    assert empty.n_patients == 0


def test_cases_of_one_patient_are_not_independent():
    values = np.random.default_rng(0).random(12)
    single = summarise(segmented(values, [str(i) for i in range(12)]), "segmentation")["dice"]
    copied = summarise(segmented(np.repeat(values, 10), np.repeat(range(12), 10).astype(str)), "segmentation")["dice"]
    naive = summarise(segmented(np.repeat(values, 10), [str(i) for i in range(120)]), "segmentation")["dice"]
    assert copied == pytest.approx(single), "ten identical scans of each patient tell nothing new"
    assert naive.high - naive.low < 0.5 * (copied.high - copied.low)


def test_degenerate_sets():
    assert summarise(segmented([0.4, 0.4], "ab"), "segmentation")["dice"][:3] == pytest.approx((0.4, 0.4, 0.4))
    one = summarise(segmented([0.4, 0.6], "aa"), "segmentation")["dice"]
    assert one.mean == 0.5
    assert math.isnan(one.low)
    rows, _, _ = classified(n=6, classes=2)
    only = [row for row in rows if row["label"] == "k0"]
    assert math.isnan(summarise(only, "classification")["auc"].mean)
    with pytest.raises(InputError, match="no cases"):
        summarise([], "segmentation")
    with pytest.raises(InputError, match="task"):
        summarise(rows, "staging")


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        values = rng.beta(8, 3, 20)
        result = summarise(segmented(values, [str(i) for i in range(20)]), "segmentation")["dice"]
        hits += result.low <= 8 / 11 <= result.high
    assert hits >= 49  # 95 % of 60 is 57; the bootstrap of 20 patients is a little too narrow


def test_repeatable():
    rows, _, _ = classified()
    assert summarise(rows, "classification") == summarise(rows, "classification")
