"""Localization: boxes around lesions, the connected components of a segmentation."""

from __future__ import annotations

from typing import Any

import numpy as np

from monai_transfer.arrays import as_array
from monai_transfer.metrics.base import LENGTH
from monai_transfer.metrics.boxes import BOX_METRICS, localization_case
from monai_transfer.metrics.masks import foreground
from monai_transfer.metrics.training import TRAINING_DICE
from monai_transfer.tasks.base import Config, Outputs, Task
from monai_transfer.tasks.cases import CaseInput, CaseResult, Maps
from monai_transfer.tasks.labels import MASK
from monai_transfer.tasks.segmentation import dice_ce, mean_dice, one_hot

__all__ = ["LOCALIZATION"]


def _probabilities(outputs: Outputs) -> list[Config]:
    return [{"_target_": "monai.transforms.Activationsd", "keys": "pred", "softmax": True}]


def _case(case: CaseInput) -> CaseResult:
    """The prediction holds probabilities (C, spatial), the truth is a label map."""
    p, truth = as_array(case.prediction), as_array(case.truth)
    how, iou = dict(case.options.get("boxes", {})), case.options.get("iou", 0.1)
    row, found, lesions = localization_case(p, truth, case.spacing, iou=iou, unit=case.unit, **how)
    names = foreground(case.labels)

    from monai_transfer.localization.world import box_records  # which brings MONAI

    def records(boxes: Any) -> list[dict[str, Any]]:
        return box_records(boxes, case.affine, names, physical=case.unit == LENGTH)

    boxes = {"boxes": records(found), "lesions": records(lesions)}
    frames = np.zeros(p.shape[1:], dtype=np.uint8)
    for box, label in zip(found.voxels[::-1], found.labels[::-1], strict=True):  # the surest on top
        frames[tuple(slice(*ends) for ends in box.reshape(2, -1).T)] = label
    return CaseResult(row, Maps(truth.reshape(frames.shape), frames), boxes)


LOCALIZATION = Task(
    name="localization",
    description="boxes around lesions",
    label=MASK,
    dense=True,
    activation="softmax",
    metrics=BOX_METRICS,
    primary_metric="froc",
    example_metric="box_iou",
    case=_case,
    known=lambda row: True,
    training_score=TRAINING_DICE,
    key_metric="val_mean_dice",
    key_metric_config=mean_dice,
    loss=dice_ce,
    validation=one_hot,
    scored=_probabilities,
    predicted=_probabilities,
    saved_as="boxes",
    output_type="image",
    output_format="segmentation",
    class_zero="background",
    default_names={0: "background", 1: "lesion"},
    trained_as="segmentation",
)
