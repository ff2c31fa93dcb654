"""Looking at a manifest's images to fit a bundle to them: dimensions, spacing, size, channels, intensities."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import EnsureChannelFirst, LoadImage, Orientation

from monai_transfer.errors import InputError
from monai_transfer.manifest import Case, Manifest

__all__ = ["DataFit", "fit_data"]

logger = logging.getLogger(__name__)
_RASTER = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


@dataclass
class DataFit:
    """What the looked-at images have in common.

    Attributes:
        spatial_dims: 2 or 3.
        suffix: the commonest file suffix; ``""`` for DICOM folders alone.
        raster: PNG and the like: no geometry in the file.
        channels: channels per image as loaded.
        spacing: median spacing, mm per axis in RAS order; ``None`` for rasters.
        shape: median shape at that orientation.
        low, high: 0.5 and 99.5 percentile of all intensities.
        mean, std: of all intensities.
        background: share of voxels that are exactly zero.
    """

    spatial_dims: int
    suffix: str
    raster: bool
    channels: int
    spacing: list[float] | None
    shape: list[int]
    low: float
    high: float
    mean: float
    std: float
    background: float

    def statistics(self) -> dict[str, Any]:
        """As data for the bundle's metadata."""
        return {
            "spacing": self.spacing,
            "shape": self.shape,
            "intensity": {"p0.5": self.low, "p99.5": self.high, "mean": self.mean, "std": self.std},
        }


def _suffix(path: str) -> str:
    name = Path(path)
    if name.is_dir():
        return ""
    return "".join(name.suffixes[-2:]) if name.suffix == ".gz" else name.suffix


def _spread(cases: Sequence[Case], n: int) -> list[Case]:
    """``n`` of the cases, evenly spread."""
    return [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, min(n, len(cases))).astype(int))]


def fit_data(manifest: Manifest, sites: Sequence[str | None], n: int = 12) -> DataFit:
    """Read up to ``n`` training images of each site and describe them.

    Raises:
        InputError: no training image, unreadable images, or 2D and 3D images in one manifest.
    """
    chosen: list[Case] = []
    for site in dict.fromkeys(sites):
        cases = manifest.cases("training", site=site) + manifest.cases("unlabeled", site=site)
        chosen += _spread(cases, n) if cases else []
    if not chosen:
        raise InputError("no training image", path=manifest.path)
    suffixes = [_suffix(case.images[0]) for case in chosen]
    suffix = max(sorted(set(suffixes) - {""}), key=suffixes.count, default="")
    raster = suffix.lower() in _RASTER
    spacings, shapes, dims, channels = [], [], set(), []
    values: list[np.ndarray] = []
    load = LoadImage(image_only=True)
    for case in chosen:
        try:
            image = EnsureChannelFirst()(load(case.image))
        except Exception as error:
            raise InputError(
                f"cannot be read ({str(error).splitlines()[0][:200]})",
                path=case.images[0],
                mend="run `monai-transfer check`",
            ) from error
        dims.add(image.ndim - 1)
        channels.append(1 if raster else int(image.shape[0]))
        if not raster and image.ndim == 4:
            image = Orientation(axcodes="RAS", labels=None)(image)
            spacings.append(np.asarray(image.pixdim[:3]))
        shapes.append(image.shape[1:])
        flat = np.asarray(image).ravel()
        values.append(flat[:: max(1, flat.size // 20000)])
    if len(dims) != 1 or not dims <= {2, 3}:
        raise InputError(
            f"images of {sorted(dims)} dimensions in one set", path=manifest.path, mend="one bundle takes 2D or 3D"
        )
    pooled = np.concatenate(values)
    return DataFit(
        spatial_dims=dims.pop(),
        suffix=suffix,
        raster=raster,
        channels=max(set(channels), key=channels.count),
        spacing=[round(float(v), 3) for v in np.median(spacings, axis=0)] if spacings else None,
        shape=[int(v) for v in np.median(np.asarray(shapes), axis=0)],
        low=round(float(np.percentile(pooled, 0.5)), 4),
        high=round(float(np.percentile(pooled, 99.5)), 4),
        mean=round(float(pooled.mean()), 4),
        std=round(float(pooled.std()), 4),
        background=round(float((pooled == 0).mean()), 3),
    )
