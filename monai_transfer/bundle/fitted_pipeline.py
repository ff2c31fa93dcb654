"""Grid, patch, intensities and label scale of a new bundle, fitted to what the data look like."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_transfer.bundle.fit import DataFit
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest

__all__ = ["fit_patch", "label_scale", "normalisation", "one_per_axis", "resampled_shape"]

_VOXELS = {
    2: {"small": 128**2, "medium": 256**2, "large": 512**2},
    3: {"small": 48**3, "medium": 96**3, "large": 128**3},
}


def one_per_axis(values: Sequence[float], dims: int, option: str) -> list[float]:
    """The values of a command-line option that wants one positive number per axis; ``InputError`` otherwise."""
    if len(values) != dims or min(values) <= 0:
        raise InputError(f"{option} needs {dims} positive numbers, got {list(values)}")
    return list(values)


def resampled_shape(fit: DataFit, spacing: Sequence[float] | None) -> list[int]:
    """Median shape of the images after resampling to ``spacing`` (mm per axis)."""
    if spacing is None or fit.spacing is None:
        return fit.shape
    return [max(1, round(n * old / new)) for n, old, new in zip(fit.shape, fit.spacing, spacing, strict=True)]


def fit_patch(shape: Sequence[int], task: str, size: str, levels: int, fit: DataFit) -> list[int]:
    """As large as the data, within the voxels that ``size`` allows, and divisible as the network needs it."""
    dense = task in ("segmentation", "localization")
    unit = 2**levels if dense else 8
    budget = _VOXELS[fit.spatial_dims][size]
    scale = min(1.0, (budget / math.prod(shape)) ** (1 / len(shape)))
    patch = [max(unit, math.ceil(n * scale / unit - 0.25) * unit) for n in shape]
    return patch if dense else [min(p, 64 if size == "small" else 224) for p in patch]


def normalisation(data: Manifest, fit: DataFit) -> list[dict[str, Any]]:
    """Intensity transforms, as configs."""
    if isinstance(data.modality, str) and re.search(r"\bCT\b", data.modality):
        # Hounsfield units mean something: one fixed window, fitted on training images
        window = {"a_min": fit.low, "a_max": fit.high, "b_min": 0.0, "b_max": 1.0, "clip": True}
        return [{"_target_": "monai.transforms.ScaleIntensityRanged", "keys": ["image"], **window}]
    return [
        {
            "_target_": "monai.transforms.NormalizeIntensityd",
            "keys": ["image"],
            "nonzero": fit.background > 0.2 and not fit.raster,
            "channel_wise": True,
        }
    ]


def label_scale(data: Manifest, *sites: str | None) -> tuple[float, float]:
    """Mean and standard deviation of a regression's training labels; (0, 1) for other tasks."""
    if data.task != "regression":
        return 0.0, 1.0
    values = [float(c.label) for site in sites for c in data.cases("training", site=site, labelled=True)]  # type: ignore[arg-type]
    if len(values) < 2:
        raise InputError("fewer than two labelled training cases", path=data.path)
    return round(float(np.mean(values)), 6), round(float(np.std(values)), 6)
