"""Regression: one quantity for every image. The network learns it scaled to mean 0 and spread 1."""

from __future__ import annotations

from typing import Any

from monai_transfer.config_text import expr, ref
from monai_transfer.metrics.reading import scalar
from monai_transfer.metrics.training import TRAINING_ERROR
from monai_transfer.metrics.values import VALUE_METRICS, has_value, regression_case
from monai_transfer.tasks.base import Config, Outputs, Task
from monai_transfer.tasks.cases import CaseInput, CaseResult
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


def _case(case: CaseInput) -> CaseResult:
    """Prediction and truth are one number each; a truth of NaN is unknown."""
    row = regression_case(case.prediction, scalar(case.truth))
    return CaseResult(row, f"truth: {row['label']:.4g}   predicted: {row['prediction']:.4g}")


def _one_number(logits: Any, label: Any) -> bool:
    one = logits.ndim == 2 and logits.shape[1] == 1 and label.shape == logits.shape and label.is_floating_point()
    return one and not bool(((label == 0) | (label == 1)).all())  # those may be a binary classifier's


REGRESSION = Task(
    name="regression",
    description="one quantity for every image",
    label=NUMBER,
    dense=False,
    activation=None,
    metrics=VALUE_METRICS,
    primary_metric="mae",
    example_metric="mae",
    case=_case,
    known=has_value,
    training_score=TRAINING_ERROR,
    key_metric="val_mae",
    key_metric_config=_absolute_error,
    loss=_squared_error,
    label_transforms=_scaled,
    validation=lambda outputs: _in_units(["pred", "label"], outputs),
    scored=lambda outputs: _in_units("pred", outputs),
    predicted=lambda outputs: _in_units("pred", outputs),
    saved_as="table",
    output_type="array",
    output_format="array",
    seen_in=_one_number,
)
