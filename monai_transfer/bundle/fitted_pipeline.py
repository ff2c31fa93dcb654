"""Grid, patch, intensities and label scale of a new bundle, fitted to what the data look like."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from monai_transfer.bundle.fit import DataFit
from monai_transfer.bundle.planning.size import Size
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest
from monai_transfer.tasks import get_task

__all__ = ["cover", "fit_grid", "fit_whole", "label_scale", "one_per_axis", "resampled_shape"]


def one_per_axis(values: Sequence[float], dims: int, option: str) -> list[float]:
    """The values of a command-line option that wants one positive number per axis.

    Raises:
        InputError: it is something else.
    """
    if len(values) != dims or min(values) <= 0:
        raise InputError(
            f"{option} needs {dims} positive numbers, got {list(values)}",
            hint="such as 1,1,3: one for each axis, positive",
        )
    return list(values)


def resampled_shape(fit: DataFit, spacing: Sequence[float] | None) -> list[int]:
    """Median shape of the images after resampling to ``spacing`` (mm per axis)."""
    if spacing is None or fit.spacing is None:
        return fit.shape
    return [max(1, round(n * old / new)) for n, old, new in zip(fit.shape, fit.spacing, spacing, strict=True)]


def fit_whole(shape: Sequence[int], size: Size) -> list[int]:
    """What whole images are resized to: as large as the data, within the voxels of ``size``, multiples of 8."""
    scale = min(1.0, (size.voxels[len(shape)] / math.prod(shape)) ** (1 / len(shape)))
    return [min(size.longest, max(8, math.ceil(n * scale / 8 - 0.25) * 8)) for n in shape]


def cover(fit: DataFit, spacing: Sequence[float]) -> list[int]:
    """Voxels per axis that hold the median field of view at ``spacing`` (mm), as multiples of 8."""
    assert fit.spacing is not None
    fields = [n * mm for n, mm in zip(fit.shape, fit.spacing, strict=True)]
    return [max(8, 8 * math.ceil(field / mm / 8 - 1e-6)) for field, mm in zip(fields, spacing, strict=True)]


def fit_grid(fit: DataFit, size: Size, patch: Sequence[int] | None = None) -> tuple[list[float], list[int]]:
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
        if math.prod(voxels) <= size.voxels[fit.spatial_dims] and max(voxels) <= size.longest:
            return spacing, voxels
        finest *= 1.05


def label_scale(data: Manifest, *sites: str | None) -> tuple[float, float]:
    """Mean and standard deviation of the training labels where they are quantities; (0, 1) for other tasks.

    Raises:
        InputError: fewer than two training cases have a label.
    """
    if not get_task(data.task).label.is_number:
        return 0.0, 1.0
    values = [float(c.label) for site in sites for c in data.cases("training", site=site, labelled=True)]  # type: ignore[arg-type]
    if len(values) < 2:
        raise InputError(
            "fewer than two labelled training cases",
            path=data.path,
            hint="label more cases, or leave the regression's scale out",
        )
    return round(float(np.mean(values)), 6), round(float(np.std(values)), 6)
