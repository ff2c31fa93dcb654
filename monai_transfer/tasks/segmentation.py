"""Segmentation: a class for every voxel."""

from __future__ import annotations

from monai_transfer.arrays import as_array
from monai_transfer.config_text import expr
from monai_transfer.metrics.masks import MASK_METRICS, segmentation_case
from monai_transfer.metrics.training import TRAINING_DICE
from monai_transfer.tasks.base import Config, Outputs, Task
from monai_transfer.tasks.cases import CaseInput, CaseResult, Maps
from monai_transfer.tasks.labels import MASK

__all__ = ["SEGMENTATION", "dice_ce", "mean_dice", "one_hot"]


def dice_ce(outputs: Outputs) -> Config:
    """Dice and cross entropy. Dice over the batch: small batches often lack a class, and its per-item Dice is noise."""
    return {
        "_target_": "monai.losses.DiceCELoss",
        "to_onehot_y": True,
        "softmax": True,
        "batch": True,
        "squared_pred": True,
    }


def mean_dice(outputs: Outputs) -> Config:
    """Mean Dice over cases and foreground classes."""
    return {
        "_target_": "monai.handlers.MeanDice",
        "include_background": False,
        "output_transform": expr("monai.handlers.from_engine(['pred', 'label'])"),
    }


def one_hot(outputs: Outputs) -> list[Config]:
    """Prediction and label as masks, one for each class."""
    return [
        {
            "_target_": "monai.transforms.AsDiscreted",
            "keys": ["pred", "label"],
            "argmax": [True, False],
            "to_onehot": len(outputs),
        }
    ]


def _label_map(outputs: Outputs) -> list[Config]:
    return [{"_target_": "monai.transforms.AsDiscreted", "keys": "pred", "argmax": True}]


def _case(case: CaseInput) -> CaseResult:
    """Both are label maps (1, H, W) or (1, H, W, D)."""
    options = {key: case.options[key] for key in ("tolerance",) if key in case.options}
    if "object_iou" in case.options:
        options["iou"] = case.options["object_iou"]
    row = segmentation_case(case.prediction, case.truth, case.labels, case.spacing, unit=case.unit, **options)
    true, predicted = (as_array(each) for each in (case.truth, case.prediction))
    return CaseResult(
        row, Maps(true.reshape(true.shape[-len(case.spacing) :]), predicted.reshape(true.shape[-len(case.spacing) :]))
    )


SEGMENTATION = Task(
    name="segmentation",
    description="a class for every voxel",
    label=MASK,
    dense=True,
    activation="softmax",
    metrics=MASK_METRICS,
    primary_metric="dice",
    example_metric="dice",
    case=_case,
    known=lambda row: True,
    training_score=TRAINING_DICE,
    key_metric="val_mean_dice",
    key_metric_config=mean_dice,
    loss=dice_ce,
    validation=one_hot,
    scored=_label_map,
    predicted=_label_map,
    saved_as="mask",
    output_type="image",
    output_format="segmentation",
    needs_names=True,
    class_zero="background",
    seen_in=lambda logits, label: logits.ndim > 2,
)
