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
from monai_transfer.tasks import get_task

__all__ = ["cover", "fit_grid", "fit_patch", "label_scale", "normalisation", "one_per_axis", "resampled_shape"]

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
    dense = get_task(task).dense
    unit = 2**levels if dense else 8
    budget = _VOXELS[fit.spatial_dims][size]
    scale = min(1.0, (budget / math.prod(shape)) ** (1 / len(shape)))
    patch = [max(unit, math.ceil(n * scale / unit - 0.25) * unit) for n in shape]
    return patch if dense else [min(p, _longest(size)) for p in patch]


def _longest(size: str) -> int:
    """Voxels of a whole image's longest axis."""
    return 64 if size == "small" else 224


def cover(fit: DataFit, spacing: Sequence[float]) -> list[int]:
    """Voxels per axis that hold the median field of view at ``spacing`` (mm), as multiples of 8."""
    assert fit.spacing is not None
    fields = [n * mm for n, mm in zip(fit.shape, fit.spacing, strict=True)]
    return [max(8, 8 * math.ceil(field / mm / 8 - 1e-6)) for field, mm in zip(fields, spacing, strict=True)]


def fit_grid(fit: DataFit, size: str, patch: Sequence[int] | None = None) -> tuple[list[float], list[int]]:
    """Spacing (mm) and voxels per axis of whole volumes that are padded or cut, never resized: a millimetre stays one.

    The data's own spacing where the median field of view then fits into the voxels that ``size`` allows, or into
    ``patch``; else the finest axes are made coarser until it does.
    """
    assert fit.spacing is not None
    if patch is not None:
        needed = [n * mm / voxels for n, mm, voxels in zip(fit.shape, fit.spacing, patch, strict=True)]
        return [max(mm, math.ceil(1e3 * v) / 1e3) for mm, v in zip(fit.spacing, needed, strict=True)], list(patch)
    finest = min(fit.spacing)
    while True:
        spacing = [max(mm, float(f"{finest:.3g}")) for mm in fit.spacing]
        voxels = cover(fit, spacing)
        if math.prod(voxels) <= _VOXELS[fit.spatial_dims][size] and max(voxels) <= _longest(size):
            return spacing, voxels
        finest *= 1.05


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
    """Mean and standard deviation of the training labels where they are quantities; (0, 1) for other tasks."""
    if not get_task(data.task).label.is_number:
        return 0.0, 1.0
    values = [float(c.label) for site in sites for c in data.cases("training", site=site, labelled=True)]  # type: ignore[arg-type]
    if len(values) < 2:
        raise InputError("fewer than two labelled training cases", path=data.path)
    return round(float(np.mean(values)), 6), round(float(np.std(values)), 6)
