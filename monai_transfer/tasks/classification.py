"""Classification: one class for every image."""

from __future__ import annotations

import numpy as np

from monai_transfer.arrays import as_array
from monai_transfer.config_text import expr
from monai_transfer.metrics.classes import CLASS_METRICS, classification_case, has_class
from monai_transfer.metrics.reading import scalar
from monai_transfer.metrics.training import TRAINING_ACCURACY
from monai_transfer.tasks.base import Config, Outputs, Task
from monai_transfer.tasks.cases import CaseInput, CaseResult
from monai_transfer.tasks.labels import CLASS

__all__ = ["CLASSIFICATION"]


def _cross_entropy(outputs: Outputs) -> Config:
    return {"_target_": "torch.nn.CrossEntropyLoss"}


def _auc(outputs: Outputs) -> Config:
    return {
        "_target_": "monai.handlers.ROCAUC",
        "output_transform": expr("monai.handlers.from_engine(['pred', 'label'])"),
    }


def _one_hot(outputs: Outputs) -> list[Config]:
    return [
        # where MONAI's decollation leaves class numbers
        {"_target_": "monai.transforms.ToDeviced", "keys": ["pred"], "device": "cpu"},
        {"_target_": "monai.transforms.Activationsd", "keys": ["pred"], "softmax": True},
        {"_target_": "monai.transforms.AsDiscreted", "keys": ["label"], "to_onehot": len(outputs)},
    ]


def _logits(outputs: Outputs) -> list[Config]:
    return [{"_target_": "monai.transforms.EnsureTyped", "keys": "pred"}]


def _probabilities(outputs: Outputs) -> list[Config]:
    return [{"_target_": "monai.transforms.Activationsd", "keys": "pred", "softmax": True}]


def _case(case: CaseInput) -> CaseResult:
    """The prediction is a vector of C values, the truth a class number; a negative one or NaN is unknown."""
    p = as_array(case.prediction).astype(float).reshape(-1)
    activation = case.options.get("activation", "softmax")
    if activation == "softmax":
        p = np.exp(p - p.max())
        p = p / p.sum()
    elif activation == "sigmoid":
        p = 1 / (1 + np.exp(-p))
        p = p / p.sum() if len(p) > 1 else np.concatenate([1 - p, p])
    label = scalar(case.truth)
    known = label is not None and label >= 0
    row = classification_case(p, int(label) if label is not None and known else None, list(case.labels.values()))
    return CaseResult(
        row, f"truth: {row['label'] or 'unknown'}   predicted: {row['prediction']} ({float(p.max()):.2f})"
    )


CLASSIFICATION = Task(
    name="classification",
    description="one class for every image",
    label=CLASS,
    dense=False,
    activation="softmax",
    metrics=CLASS_METRICS,
    primary_metric="auc",
    example_metric="log_loss",
    class_metric="recall",
    case=_case,
    known=has_class,
    training_score=TRAINING_ACCURACY,
    key_metric="val_auc",
    key_metric_config=_auc,
    loss=_cross_entropy,
    validation=_one_hot,
    scored=_logits,
    predicted=_probabilities,
    saved_as="table",
    output_type="probabilities",
    output_format="classes",
    needs_names=True,
    class_zero="class",
    seen_in=lambda logits, label: logits.ndim == 2 and not label.is_floating_point(),
)
