"""Validation: the cases that choose the epoch, their metric, the engine that runs over them."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.datasets import cached, loader, transforms
from monai_transfer.bundle.configs.labels import targets
from monai_transfer.bundle.configs.network import inferer
from monai_transfer.bundle.configs.parts import monai
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr, ref

__all__ = ["batch_size", "evaluator", "validate"]


def batch_size(s: BundleSpec) -> int:
    """Cases per batch of what is only looked at: whole volumes differ in shape."""
    return 1 if s.dense else 16


def evaluator(part: str, **more: Any) -> dict[str, Any]:
    """The engine that runs over ``part``'s loader."""
    arguments: dict[str, Any] = {
        "device": ref("device"),
        "val_data_loader": ref(f"{part}#dataloader"),
        "network": ref("network"),
        "inferer": ref("validate#inferer"),
    }
    return monai("engines.SupervisedEvaluator", **(arguments | more | {"amp": ref("amp")}))


def validate(s: BundleSpec) -> dict[str, Any]:
    """The validation of ``train.yaml``."""
    steps = ["train#loading_transforms", "normalise"] + (["train#padding_transforms"] if s.dense else [])
    steps += ["train#label_transforms"] if s.kind.label_transforms(s.outputs) else []
    steps += ["train#target_transforms"] if targets(s) else []
    return {
        "preprocessing": transforms(*steps),
        "dataset": cached(s, expr("@lists.target_validation"), ref("validate#preprocessing")),
        "dataloader": loader("validate", batch_size(s), num_workers=0),
        "inferer": inferer(s),
        "postprocessing": monai("transforms.Compose", transforms=s.kind.validation(s.outputs)),
        "key_metric": {s.key_metric: s.kind.key_metric_config(s.outputs)},
        "handlers": [],
        "evaluator": evaluator(
            "validate",
            postprocessing=ref("validate#postprocessing"),
            key_val_metric=ref("validate#key_metric"),
            val_handlers=ref("validate#handlers"),
        ),
    }
