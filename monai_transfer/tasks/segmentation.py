"""Segmentation: a class for every voxel."""

from __future__ import annotations

import numpy as np

from monai_transfer.arrays import as_array
from monai_transfer.config_text import expr
from monai_transfer.metrics.masks import MASK_METRICS, agreement_with_source, segmentation_case
from monai_transfer.metrics.training import TRAINING_DICE
from monai_transfer.tasks.base import Config, Outputs, Task
from monai_transfer.tasks.cases import CaseInput, CaseResult, Maps
from monai_transfer.tasks.labels import MASK

__all__ = ["SEGMENTATION", "dice_ce", "mean_dice", "one_hot"]


def dice_ce(outputs: Outputs) -> Config:
    """Dice and cross entropy. Dice over the batch: small batches often lack a class, and its per-item Dice is noise.

    Args:
        outputs: of the task.

    >>> from monai_transfer.tasks.base import Outputs
    >>> dice_ce(Outputs(["background", "liver"]))["_target_"]
    'monai.losses.DiceCELoss'
    """
    if outputs.gaps:
        return {"_target_": "monai_transfer.losses.known_dice_ce.KnownDiceCELoss"}
    return {
        "_target_": "monai.losses.DiceCELoss",
        "to_onehot_y": True,
        "softmax": True,
        "batch": True,
        "squared_pred": True,
    }


def mean_dice(outputs: Outputs) -> Config:
    """Mean Dice over cases and foreground classes.

    Args:
        outputs: of the task.

    >>> from monai_transfer.tasks.base import Outputs
    >>> mean_dice(Outputs(["background", "liver"]))["include_background"]
    False
    """
    whole = {"_target_": "monai.handlers.MeanDice", "include_background": False}
    return {
        **({"_target_": "monai_transfer.metrics.validation.KnownDice"} if outputs.gaps else whole),
        "output_transform": expr("monai.handlers.from_engine(['pred', 'label'])"),
    }


def one_hot(outputs: Outputs) -> list[Config]:
    """Prediction and label as masks, one for each class.

    Args:
        outputs: of the task.

    >>> from monai_transfer.tasks.base import Outputs
    >>> one_hot(Outputs(["background", "liver"]))[0]["to_onehot"]
    2
    """
    discrete: Config = {"_target_": "monai.transforms.AsDiscreted"}
    if outputs.gaps:  # the metric reads the label as it is
        return [discrete | {"keys": ["pred"], "argmax": True, "to_onehot": len(outputs)}]
    return [discrete | {"keys": ["pred", "label"], "argmax": [True, False], "to_onehot": len(outputs)}]


def _label_map(outputs: Outputs) -> list[Config]:
    return [{"_target_": "monai.transforms.AsDiscreted", "keys": "pred", "argmax": True}]


def _case(case: CaseInput) -> CaseResult:
    """Both are label maps (1, H, W) or (1, H, W, D); -1 in the truth is ignored."""
    options = {key: case.options[key] for key in ("tolerance",) if key in case.options}
    if "object_iou" in case.options:
        options["iou"] = case.options["object_iou"]
    row = segmentation_case(
        case.prediction, case.truth, case.labels, case.spacing, unit=case.unit, unknown=case.unknown, **options
    )
    if kept := case.options.get("kept"):
        row |= agreement_with_source(case.prediction, case.source, case.labels, kept, case.unknown)
    shape = as_array(case.truth).shape[-len(case.spacing) :]
    true, predicted = (as_array(each).reshape(shape) for each in (case.truth, case.prediction))
    return CaseResult(row, Maps(np.maximum(true, 0), predicted))


def _written(outputs: Outputs) -> list[Config]:
    """A label map in the files' own values."""
    if outputs.written is None:
        return _label_map(outputs)
    numbers = list(range(len(outputs.written)))
    back = {"orig_labels": numbers, "target_labels": list(outputs.written)}
    return [*_label_map(outputs), {"_target_": "monai.transforms.MapLabelValued", "keys": "pred", **back}]


SEGMENTATION = Task(
    name="segmentation",
    description="a class for every voxel",
    label=MASK,
    dense=True,
    activation="softmax",
    metrics=MASK_METRICS,
    primary_metric="dice",
    example_metric="dice",
    class_metric="dice",
    case=_case,
    known=lambda row: True,
    training_score=TRAINING_DICE,
    key_metric="val_mean_dice",
    key_metric_config=mean_dice,
    loss=dice_ce,
    validation=one_hot,
    scored=_label_map,
    predicted=_written,
    saved_as="mask",
    output_type="image",
    output_format="segmentation",
    needs_names=True,
    class_zero="background",
    seen_in=lambda logits, label: logits.ndim > 2,
)
