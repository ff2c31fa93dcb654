"""Validation: the cases that choose the epoch, their metric, the engine that runs over them."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.augmentation import pad
from monai_transfer.bundle.configs.datasets import cached, loader, transforms
from monai_transfer.bundle.configs.grid import space
from monai_transfer.bundle.configs.labels import targets
from monai_transfer.bundle.configs.network import inferer
from monai_transfer.bundle.configs.parts import monai, ours
from monai_transfer.bundle.configs.reading import read
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr, ref

__all__ = ["batch_size", "evaluator", "labelled", "validate"]


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


def labelled(s: BundleSpec) -> dict[str, Any]:
    """The labelled target cases, for the untouched source's score; target images in patches, for statistics."""
    keys = ["image"]
    padding = [pad(keys)] if s.dense else []
    cut = ours(
        "data.augmentation.presets.Preset",
        name="none",
        dims=s.spatial_dims,
        spacing=ref("spacing") if s.spacing and s.kept is None else None,
        patch=ref("patch"),
        task="self_supervised",
    )
    return {
        "dataset": cached(s, expr("@lists.target_training + @lists.target_validation"), ref("validate#preprocessing")),
        "dataloader": loader("labelled", batch_size(s), num_workers=0),
        "key_metric": {s.key_metric: s.kind.key_metric_config(s.outputs)},
        "evaluator": evaluator(
            "labelled", postprocessing=ref("validate#postprocessing"), key_val_metric=ref("labelled#key_metric")
        ),
        "loading_transforms": [*read(keys), *space(s, keys)],
        "cutting_transforms": [*padding, cut],
        "images": monai(
            "data.DataLoader",
            dataset=cached(
                s,
                expr("@lists.target_unlabelled"),
                transforms("labelled#loading_transforms", "normalise", "labelled#cutting_transforms"),
            ),
            batch_size=ref("batch_size"),
            shuffle=True,
            num_workers=0,
        ),
    }
