"""Segmentation: a class for every voxel."""

from __future__ import annotations

from monai_transfer.config_text import expr
from monai_transfer.tasks.base import Config, Outputs, Task
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


SEGMENTATION = Task(
    name="segmentation",
    description="a class for every voxel",
    label=MASK,
    dense=True,
    activation="softmax",
    primary_metric="dice",
    key_metric="val_mean_dice",
    key_metric_config=mean_dice,
    higher_is_better=True,
    loss=dice_ce,
    validation=one_hot,
    scored=_label_map,
    predicted=_label_map,
    saved_as="mask",
    output_type="image",
    output_format="segmentation",
    needs_names=True,
    class_zero="background",
)
