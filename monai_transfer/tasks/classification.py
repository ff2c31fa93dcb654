"""Classification: one class for every image."""

from __future__ import annotations

from monai_transfer.config_text import expr
from monai_transfer.tasks.base import Config, Outputs, Task
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


CLASSIFICATION = Task(
    name="classification",
    description="one class for every image",
    label=CLASS,
    dense=False,
    activation="softmax",
    primary_metric="auc",
    key_metric="val_auc",
    key_metric_config=_auc,
    higher_is_better=True,
    loss=_cross_entropy,
    validation=_one_hot,
    scored=_logits,
    predicted=_probabilities,
    saved_as="table",
    output_type="probabilities",
    output_format="classes",
    needs_names=True,
    class_zero="class",
)
