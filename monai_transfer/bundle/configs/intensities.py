"""Intensities: normalisation of images, the scale of a regression's labels."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.parts import monai, ours
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import expr

__all__ = ["intensity_steps", "label_scale", "normalise", "scaled"]


def intensity_steps(s: BundleSpec) -> list[Any]:
    """The intensity transforms."""
    return [*s.normalise, monai("transforms.EnsureTyped", keys=["image"], dtype=expr("torch.float32"))]


def normalise(s: BundleSpec) -> dict[str, Any]:
    """The intensity transforms, as one root id that every pipeline of a config shares."""
    zeros = [ours("data.missing.ZeroMissingd", keys=["image"])] if s.channel_dropout else []
    said = "; zeros where a case lacks a channel" if zeros else ""
    return {"normalise": note([*intensity_steps(s), *zeros], f"intensities, as the network sees them{said}")}


def scaled(s: BundleSpec) -> bool:
    """Whether labels are numbers, which are learned at mean 0 and spread 1."""
    return s.kind.label.name == "number"


def label_scale(s: BundleSpec) -> dict[str, Any]:
    """Mean and spread of a regression's training labels, as a root id; nothing for other tasks."""
    if not scaled(s):
        return {}
    return {
        "label_scale": note(
            {"mean": s.label_mean, "std": s.label_std}, "the network tells (label - mean) / std; of the training labels"
        )
    }
