"""Regression: one quantity for every image. The network learns it scaled to mean 0 and spread 1."""

from __future__ import annotations

from monai_transfer.config_text import expr, ref
from monai_transfer.tasks.base import Config, Outputs, Task
from monai_transfer.tasks.labels import NUMBER

__all__ = ["REGRESSION"]


def _squared_error(outputs: Outputs) -> Config:
    return {"_target_": "torch.nn.MSELoss"}


def _absolute_error(outputs: Outputs) -> Config:
    return {
        "_target_": "monai.handlers.MeanAbsoluteError",
        "output_transform": expr("monai.handlers.from_engine(['pred', 'label'])"),
    }


def _scaled(outputs: Outputs) -> list[Config]:
    scale = {"mean": ref("label_scale#mean"), "std": ref("label_scale#std")}
    return [{"_target_": "monai_transfer.tasks.label_scale.ScaleLabeld", "keys": ["label"], **scale}]


def _in_units(keys: list[str] | str, outputs: Outputs) -> list[Config]:
    func = expr("lambda value: value * @label_scale#std + @label_scale#mean")
    return [{"_target_": "monai.transforms.Lambdad", "keys": keys, "func": func}]


REGRESSION = Task(
    name="regression",
    description="one quantity for every image",
    label=NUMBER,
    dense=False,
    activation=None,
    primary_metric="mae",
    key_metric="val_mae",
    key_metric_config=_absolute_error,
    higher_is_better=False,
    loss=_squared_error,
    label_transforms=_scaled,
    validation=lambda outputs: _in_units(["pred", "label"], outputs),
    scored=lambda outputs: _in_units("pred", outputs),
    predicted=lambda outputs: _in_units("pred", outputs),
    saved_as="table",
    output_type="array",
    output_format="array",
)
