"""Ignored voxels and classes that nobody looked for: not measured, and not counted as wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from monai.networks import one_hot

from monai_transfer.evaluation.summary import summarise
from monai_transfer.metrics.masks import segmentation_case
from monai_transfer.metrics.validation import KnownDice, KnownDiceMetric

LABELS = {0: "background", 1: "liver", 2: "spleen"}


def test_ignored_voxels_are_not_measured():
    truth = np.zeros((8, 8), int)
    truth[2:6, 2:6] = 1
    prediction = truth.copy()
    prediction[0] = 2  # wrong, but ignored
    truth[0] = -1
    row = segmentation_case(prediction, truth, LABELS, (1, 1))
    assert row["dice"] == 1 and row["false_positive_spleen"] == 0 and math.isnan(row["dice_spleen"])


def test_a_class_that_nobody_looked_for_leaves_the_mean():
    truth = np.zeros((8, 8), int)
    truth[2:6, 2:6] = 2
    prediction = truth.copy()
    prediction[0:2] = 1
    row = segmentation_case(prediction, truth, LABELS, (1, 1), unknown=["liver"])
    assert row["dice"] == row["dice_spleen"] == 1
    assert math.isnan(row["dice_liver"]) and math.isnan(row["false_positive_liver"])
    assert row["area_pred_mm2_liver"] == 16 and math.isnan(row["area_true_mm2_liver"])
    other = segmentation_case(prediction, np.where(truth == 2, 0, 1) * (prediction == 1), LABELS, (1, 1))
    rows = [{"case": "a", "patient": "a", **row}, {"case": "b", "patient": "b", **other}]
    found = summarise(rows, "segmentation")
    assert found["dice_liver"].n_patients == 1 and found["object_sensitivity_liver"].mean == 1


def test_the_validation_metric_is_monais_where_everything_is_known():
    prediction, label = torch.randint(0, 3, (4, 1, 8, 8)), torch.randint(0, 3, (4, 1, 8, 8))
    label[0][label[0] == 2] = 0  # a class without a true voxel
    monai = DiceMetric(include_background=False)
    monai(one_hot(prediction, 3), one_hot(label, 3))
    ours = KnownDiceMetric()
    ours(one_hot(prediction, 3), label)
    assert ours.aggregate().item() == pytest.approx(monai.aggregate().item(), rel=1e-6)


def test_the_validation_metric_leaves_out_what_is_not_known():
    prediction, label = torch.randint(0, 3, (2, 1, 8, 8)), torch.randint(0, 3, (2, 1, 8, 8))
    hidden = label.clone()
    hidden[:, :, 4:] = -1
    ours, part = KnownDice(), KnownDiceMetric()
    ours.update((one_hot(prediction, 3), hidden))
    part(one_hot(prediction, 3)[:, :, :4], label[:, :, :4])
    assert float(ours.compute()) == pytest.approx(part.aggregate().item())
    targets = torch.full((1, 3, 4, 4), -1)
    targets[:, 2] = 0
    targets[:, 2, 0] = 1  # only the spleen was looked for
    metric = KnownDiceMetric()
    said = torch.ones(1, 1, 4, 4).long()
    said[..., 0, :] = 2
    metric(one_hot(said, 3), targets)
    assert metric.aggregate().item() == 1.0
