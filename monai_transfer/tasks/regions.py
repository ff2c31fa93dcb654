"""Regions that may overlap, such as the whole tumour and its core: a sigmoid output for each, for every voxel.

Manifests of it are segmentations that declare ``regions``. Predictions are written as label maps in the files' own
values: each set of regions has the value that the label mapping gives it.
"""

from __future__ import annotations

from typing import Any

from monai_transfer.arrays import as_array
from monai_transfer.config_text import expr
from monai_transfer.metrics.masks import MASK_METRICS, region_case
from monai_transfer.metrics.training import TRAINING_REGIONS
from monai_transfer.tasks.base import Config, Outputs, Task
from monai_transfer.tasks.cases import CaseInput, CaseResult, Maps
from monai_transfer.tasks.labels import MASK

__all__ = ["REGIONS"]


def _dice_bce(outputs: Outputs) -> Config:
    return {"_target_": "monai_transfer.losses.known_dice_bce.KnownDiceBCELoss"}


def _mean_dice(outputs: Outputs) -> Config:
    return {
        "_target_": "monai_transfer.metrics.validation.KnownDice",
        "include_background": True,
        "output_transform": expr("monai.handlers.from_engine(['pred', 'label'])"),
    }


def _masks(outputs: Outputs) -> list[Config]:
    return [
        {"_target_": "monai.transforms.Activationsd", "keys": "pred", "sigmoid": True},
        {"_target_": "monai.transforms.AsDiscreted", "keys": "pred", "threshold": 0.5},
    ]


def _written(outputs: Outputs) -> list[Config]:
    """Which regions hold a voxel, as one number, and from there to the files' values; arithmetic and MONAI alone."""
    number = " + ".join(f"{2**k} * pred[{k}:{k + 1}]" for k in range(len(outputs)))
    return [
        *_masks(outputs),
        {"_target_": "monai.transforms.Lambdad", "keys": "pred", "func": expr(f"lambda pred: {number}")},
        {
            "_target_": "monai.transforms.MapLabelValued",
            "keys": "pred",
            "orig_labels": list(range(len(outputs.combinations))),
            "target_labels": list(outputs.combinations),
        },
    ]


def _case(case: CaseInput) -> CaseResult:
    """Both have a channel for each region; -1 in the truth is not known."""
    options = {key: case.options[key] for key in ("tolerance",) if key in case.options}
    if "object_iou" in case.options:
        options["iou"] = case.options["object_iou"]
    names = list(case.labels.values())
    row = region_case(case.prediction, case.truth, names, case.spacing, unit=case.unit, unknown=case.unknown, **options)
    true, predicted = as_array(case.truth) == 1, as_array(case.prediction) > 0.5
    return CaseResult(row, Maps(true.sum(0), predicted.sum(0)))  # how many regions hold a voxel


def _overlapping(logits: Any, label: Any) -> bool:
    if logits.ndim < 3 or logits.shape[1] < 2 or label.shape != logits.shape:
        return False
    whole = bool(((label == 0) | (label == 1) | (label == -1)).all())
    return whole and bool(((label == 1).sum(1) > 1).any())  # of classes that exclude each other one holds a voxel


REGIONS = Task(
    name="regions",
    description="regions that may overlap, for every voxel",
    label=MASK,
    dense=True,
    activation="sigmoid",
    metrics=MASK_METRICS,
    primary_metric="dice",
    example_metric="dice",
    class_metric="dice",
    case=_case,
    known=lambda row: True,
    training_score=TRAINING_REGIONS,
    key_metric="val_mean_dice",
    key_metric_config=_mean_dice,
    loss=_dice_bce,
    validation=_masks,
    scored=_masks,
    predicted=_written,
    saved_as="mask",
    output_type="image",
    output_format="segmentation",
    needs_names=True,
    channels=True,
    seen_in=_overlapping,
    trained_as="regression",
    in_manifest=False,
    form_of="segmentation",
    applies=lambda manifest: bool(getattr(manifest, "regions", None)),
)
