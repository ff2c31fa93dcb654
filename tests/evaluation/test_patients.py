"""One value per patient: means, and jackknife pseudo-values of metrics that belong to the whole set."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, r2_score, roc_auc_score

from monai_transfer.evaluation.patients import fill_right, patient_values
from monai_transfer.metrics import classification_case, regression_case
from monai_transfer.metrics.masks import MASK_METRICS


def classified(n=40, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 2
    p = np.clip(0.5 + 0.2 * (2 * truth - 1) + 0.25 * rng.normal(size=n), 0.01, 0.99)
    patient = np.arange(n) // 2  # two cases each, one of each class
    rows = [
        {"patient": f"p{patient[i]:02d}", **classification_case([1 - p[i], p[i]], int(truth[i]), ["a", "b"])}
        for i in range(n)
    ]
    return rows, truth, p, patient


def test_pseudo_values_by_leaving_each_patient_out():
    rows, truth, p, patient = classified()
    got = patient_values(rows, "auc", "classification")
    whole = roc_auc_score(truth, p)
    n = 20
    for k in range(n):
        keep = patient != k
        assert got[f"p{k:02d}"] == pytest.approx(n * whole - (n - 1) * roc_auc_score(truth[keep], p[keep]))
    assert np.mean(list(got.values())) == pytest.approx(whole, abs=0.01)
    f1 = patient_values(rows, "f1", "classification")
    keep = patient != 3
    expected = n * f1_score(truth, p > 0.5, average="macro")
    expected -= (n - 1) * f1_score(truth[keep], p[keep] > 0.5, average="macro")
    assert f1["p03"] == pytest.approx(expected)


def test_pseudo_values_give_the_sampling_error_of_an_auc():
    """Their standard error is what AUCs of new patients scatter by."""
    errors, areas = [], []
    for seed in range(60):
        rows, _, _, _ = classified(seed=seed)
        values = np.array(list(patient_values(rows, "auc", "classification").values()))
        errors.append(values.std(ddof=1) / np.sqrt(len(values)))
        areas.append(values.mean())
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.35)


def test_a_class_with_one_patient_has_no_pseudo_values():
    rows = [
        {"patient": f"p{i}", **classification_case([0.4, 0.6], int(i == 0), ["a", "b"])} for i in range(5)
    ]  # fmt: skip
    assert np.isnan(list(patient_values(rows, "auc", "classification").values())).all()
    assert patient_values(rows, "accuracy", "classification")["p0"] == 1


def test_r2_and_means():
    rng = np.random.default_rng(0)
    y = rng.normal(size=10)
    guess = y + 0.3 * rng.normal(size=10)
    rows = [{"patient": str(i), **regression_case(guess[i], y[i])} for i in range(10)]
    got = patient_values(rows, "r2", "regression")
    assert got["4"] == pytest.approx(10 * r2_score(y, guess) - 9 * r2_score(np.delete(y, 4), np.delete(guess, 4)))
    two = [{"patient": "x", "dice": "0.2"}, {"patient": "x", "dice": "0.4"}, {"patient": "y", "dice": ""}]
    values = patient_values(two, "dice", "segmentation")
    assert values["x"] == pytest.approx(0.3)
    assert np.isnan(values["y"])


def test_a_false_positive_stays_in_the_comparison():
    nan = np.nan
    runs = np.array([[0.8, nan, nan], [0.7, 0.0, nan]])  # the second run invents a structure in the second case
    assert fill_right(runs, MASK_METRICS["dice"]).tolist()[0][:2] == [0.8, 1.0]
    assert np.isnan(fill_right(runs, MASK_METRICS["dice"])[:, 2]).all()
    assert fill_right(np.array([[nan], [50.0]]), MASK_METRICS["hd95"]).tolist() == [[0.0], [50.0]]
