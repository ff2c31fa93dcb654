"""Several findings: against scikit-learn on what is known, and what is unknown counts for nothing."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from monai_transfer.errors import InputError
from monai_transfer.evaluation.patients import available_metrics, patient_values
from monai_transfer.evaluation.recorder import write_cases
from monai_transfer.evaluation.summary import summarise
from monai_transfer.metrics.findings import average_precision, findings_case
from monai_transfer.metrics.validation import FindingAuc, FindingAucMetric

NAMES = ["mass", "effusion", "nodule"]


def drawn(n=80, seed=0):
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, 3)) < [0.5, 0.3, 0.4]).astype(float)
    p = np.clip(0.5 + 0.2 * (2 * truth - 1) + 0.25 * rng.normal(size=truth.shape), 0.01, 0.99).round(2)
    truth[rng.random(truth.shape) < 0.3] = -1
    truth[:, 2] = np.where(truth[:, 2] == 1, -1, truth[:, 2])  # nobody has a known nodule
    rows = [{"case": f"c{i}", "patient": f"p{i}", **findings_case(p[i], truth[i], NAMES)} for i in range(n)]
    return rows, truth, p


def test_scores_agree_with_scikit_learn_on_the_known_cases(tmp_path):
    rows, truth, p = drawn()
    write_cases(tmp_path / "cases.csv", rows)
    with (tmp_path / "cases.csv").open() as stream:
        read = list(csv.DictReader(stream))
    for source in (rows, read):
        found = summarise(source, "multilabel")
        for k, name in enumerate(NAMES[:2]):
            known = truth[:, k] >= 0
            t, s = truth[known, k], p[known, k]
            assert found[f"auc_{name}"].mean == pytest.approx(roc_auc_score(t, s))
            assert found[f"ap_{name}"].mean == pytest.approx(average_precision_score(t, s))
            assert found[f"balanced_accuracy_{name}"].mean == pytest.approx(balanced_accuracy_score(t, s > 0.5))
            assert found[f"sensitivity_{name}"].mean == pytest.approx((s[t == 1] > 0.5).mean())
        both = [found[f"auc_{name}"].mean for name in NAMES[:2]]
        assert found["auc"].mean == pytest.approx(np.mean(both)), "over the findings that can be judged"
        assert "auc_nodule" not in found
        assert found["auc"].low < found["auc"].mean < found["auc"].high


def test_weighted_average_precision_is_that_of_repeated_cases():
    rng = np.random.default_rng(1)
    score, truth = rng.random(40).round(1), rng.random(40) < 0.4
    weights = rng.integers(0, 4, (5, 40)).astype(float)
    for w, value in zip(weights, average_precision(score, truth, weights), strict=True):
        assert value == pytest.approx(average_precision_score(truth, score, sample_weight=w))
    assert np.isnan(average_precision(score, np.zeros(40, dtype=bool), weights)).all()


def test_a_row():
    row = findings_case(torch.tensor([0.9, 0.2, 0.6]), torch.tensor([1.0, 0.0, -1.0]), NAMES)
    assert (row["label"], row["correct"]) == ("mass", 1.0) and math.isnan(row["label_nodule"])
    assert row["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2)
    assert findings_case([0.1] * 3, [0, -1, -1], NAMES)["label"] == "no finding"
    assert findings_case([0.1] * 3, None, NAMES)["label"] == ""


@pytest.mark.parametrize(
    ("p", "truth", "words"),
    [([2.0, 0, 0], [1, 0, 0], "sigmoid"), ([0.5, 0.5], [1, 0], "2 outputs"), ([0.5] * 3, [1, 0], "2 findings")],
)
def test_what_is_no_prediction_is_refused(p, truth, words):
    with pytest.raises(InputError, match=words):
        findings_case(p, truth, NAMES)


def test_each_finding_can_be_compared_patient_by_patient():
    rows, truth, p = drawn()
    names = available_metrics(rows, "multilabel")
    assert names[0] == "auc" and "ap_effusion" in names and "auc_nodule" not in names
    values = patient_values(rows, "auc_mass", "multilabel")
    known = truth[:, 0] >= 0
    assert np.mean(list(values.values())) == pytest.approx(roc_auc_score(truth[known, 0], p[known, 0]), abs=0.02)


def test_a_finding_with_one_patient_does_not_take_the_others_away():
    rows, _, _ = drawn()
    alone = [{**row, "label_nodule": 1.0 if i == 0 else 0.0} for i, row in enumerate(rows)]
    assert np.isfinite(list(patient_values(alone, "auc", "multilabel").values())).all()
    assert np.isnan(list(patient_values(alone, "auc_nodule", "multilabel").values())).all()


def test_the_validation_metric_leaves_unknown_labels_out():
    _, truth, p = drawn()
    metric = FindingAucMetric()
    metric(torch.tensor(p[:40]), torch.tensor(truth[:40]))
    metric(torch.tensor(p[40:]), torch.tensor(truth[40:]))
    each = [roc_auc_score(truth[truth[:, k] >= 0, k], p[truth[:, k] >= 0, k]) for k in range(2)]
    assert metric.aggregate().item() == pytest.approx(np.mean(each), abs=1e-6)
    nothing = FindingAuc()
    nothing.update((torch.tensor(p[:4]), torch.full((4, 3), -1.0)))
    assert math.isnan(float(nothing.compute()))
