"""Localization: boxes around lesions, the connected components of a segmentation."""

from __future__ import annotations

from monai_transfer.tasks.base import Config, Outputs, Task
from monai_transfer.tasks.labels import MASK
from monai_transfer.tasks.segmentation import dice_ce, mean_dice, one_hot

__all__ = ["LOCALIZATION"]


def _probabilities(outputs: Outputs) -> list[Config]:
    return [{"_target_": "monai.transforms.Activationsd", "keys": "pred", "softmax": True}]


LOCALIZATION = Task(
    name="localization",
    description="boxes around lesions",
    label=MASK,
    dense=True,
    activation="softmax",
    primary_metric="froc",
    key_metric="val_mean_dice",
    key_metric_config=mean_dice,
    higher_is_better=True,
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
