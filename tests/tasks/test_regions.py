"""Regions that may overlap: loss and scores against MONAI and single masks, and the way back to the files' values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.losses import DiceLoss

from monai_transfer.losses.known_dice_bce import KnownDiceBCELoss
from monai_transfer.manifest.label_mapping import LabelMapping
from monai_transfer.metrics.masks import region_case, segmentation_case
from monai_transfer.metrics.training import TRAINING_REGIONS
from monai_transfer.tasks import TASKS, Outputs, task_of

BRATS = LabelMapping(
    {"background": (0,), "necrosis": (1,), "oedema": (2,), "enhancing": (4,)},
    regions={"whole": (1, 2, 4), "core": (1, 4), "enhancing tumour": (4,)},
)


def outputs():
    return Outputs(BRATS.outputs, combinations=BRATS.values_of_regions())


def test_the_loss_is_monais_where_everything_is_known():
    logits, target = torch.randn(2, 3, 6, 6, 5), torch.randint(0, 2, (2, 3, 6, 6, 5)).float()
    monai = DiceLoss(sigmoid=True, batch=True, squared_pred=True)(logits, target)
    monai = monai + torch.nn.BCEWithLogitsLoss()(logits, target)
    assert KnownDiceBCELoss()(logits, target).item() == pytest.approx(monai.item(), rel=1e-4)
    target[:, 1] = -1
    free = logits.clone().requires_grad_()
    KnownDiceBCELoss()(free, target).backward()
    assert not free.grad[:, 1].any() and free.grad[:, 0].any()


def test_predictions_are_written_in_the_files_values():
    config = TASKS["regions"].predicted(outputs())
    steps = ConfigParser({"imports": ["$import torch"], "steps": config}).get_parsed_content("steps")
    truth = np.array([[0, 1, 2, 4, 0]])
    on = BRATS.targets(BRATS.encode(truth)).astype(float)
    item = {"pred": torch.tensor(20 * on - 10).float()}
    for step in steps:
        item = step(item)
    assert item["pred"].tolist() == truth.tolist()


def test_each_region_is_measured_as_a_mask_of_its_own():
    rng = np.random.default_rng(0)
    predicted, true = (BRATS.targets(rng.integers(0, 4, (1, 10, 10, 8))) for _ in range(2))
    row = region_case(predicted, true, BRATS.outputs, (1, 1, 2))
    for k, name in enumerate(BRATS.outputs):
        alone = segmentation_case(predicted[k], true[k], {0: "b", 1: "x"}, (1, 1, 2))
        for metric in ("dice", "hd95", "volume_pred_ml"):
            assert row[f"{metric}_{name}"] == alone[f"{metric}_x"]
    assert row["dice"] == pytest.approx(np.mean([row[f"dice_{name}"] for name in BRATS.outputs]))
    true[:, 0, 0] = -1
    assert region_case(predicted, true, BRATS.outputs, (1, 1, 2))["dice_whole"] != row["dice_whole"]


def test_training_dice_of_regions():
    target = torch.tensor([[[1, 1, 0, -1], [1, 0, 0, 0]]])
    logits = torch.where(target == 1, 3.0, -3.0)
    logits[0, 0, 3] = 3.0  # nobody can tell
    sums = TRAINING_REGIONS.sums(logits, target)
    assert TRAINING_REGIONS.value(sums.double()) == 1.0


def test_a_segmentation_with_regions_is_of_this_task():
    class Given:
        task = "segmentation"
        regions = {"whole": [1, 2]}
        multi_label = False

    assert task_of(Given()) is TASKS["regions"]
    Given.regions = {}
    assert task_of(Given()) is TASKS["segmentation"]
