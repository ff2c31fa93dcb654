"""A case in numbers: what can be measured of an image (and its label) without any model.

All intensities are first scaled per image so that its 1st and 99th percentile become 0 and 1; "range" below is that
span. A constant padding value is left out. In 3D, texture is measured in some slices across the coarsest axis.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from nibabel.orientations import io_orientation
from scipy.ndimage import convolve, gaussian_filter

from monai_transfer.data.readers import SafeReader, Volume
from monai_transfer.errors import InputError
from monai_transfer.manifest.model import Case, Manifest
from monai_transfer.tasks import get_task

__all__ = ["FEATURE_NAMES", "LEVELS", "CaseDescription", "describe_case", "noise_level"]

LEVELS = np.linspace(0.01, 0.99, 50)
"""Probabilities at which ``CaseDescription.quantiles`` are taken."""

_FEATURE_LEVELS = (0.05, 0.15, 0.25, 0.4, 0.5, 0.6, 0.75, 0.85, 0.95)
_SCALES = (1.0, 2.0, 4.0)  # pixels, of the difference-of-Gaussians bands
FEATURE_NAMES = (
    *(f"quantile {level:g}" for level in _FEATURE_LEVELS),
    "contrast",
    "log noise",
    *(f"log detail at {scale:g} px" for scale in _SCALES),
)
"""Names of ``CaseDescription.features``, the fixed handcrafted features of the learned distance."""

_LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=float)
_SLICES = 9
_VOXELS = 200_000


@dataclass(frozen=True)
class CaseDescription:
    """What was measured of one case.

    Attributes:
        case, patient, site, acquired: as in the manifest.
        channels: number of image channels; all measurements are means over them.
        shape: voxels along the axes, in 3D those nearest to left-right, back-front, feet-head.
        spacing: mm along the same axes, ``None`` where the format knows no geometry.
        scale: 99th minus 1st percentile of the raw intensities.
        quantiles: of the scaled intensities at ``LEVELS``.
        contrast: interquartile range over range.
        noise: standard deviation of the noise over range.
        features: ``FEATURE_NAMES``.
        sizes: segmentation: by class name, volume in ml, or share of the image in % without a 3D geometry.
        label_contrast: segmentation: by class name, mean scaled intensity inside minus outside.
        target: class name (classification) or quantity (regression), ``None`` without a label.
    """

    case: str
    patient: str
    site: str
    acquired: float | None
    channels: int
    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    scale: float
    quantiles: np.ndarray
    contrast: float
    noise: float
    features: np.ndarray
    sizes: dict[str, float] = field(default_factory=dict)
    label_contrast: dict[str, float] = field(default_factory=dict)
    target: str | float | None = None


def describe_case(case: Case, manifest: Manifest) -> CaseDescription:
    """Read and measure one case.

    Raises:
        InputError: a file cannot be read, is constant, or its label lies on another grid.
    """
    reader = SafeReader()
    volumes = [reader.read_volume(path) for path in case.images]
    first = volumes[0]
    channels = [channel for volume in volumes for channel in _channels(volume)]
    scaled, scales = zip(*(_scale(channel, case.images[0]) for channel in channels), strict=True)
    axes, shape, spacing = _canonical(first)
    slicing = int(np.argmax(first.spacing)) if first.spacing and len(first.spatial_shape) == 3 else -1
    texture = np.mean([_texture(image, slicing) for image in scaled], axis=0)
    quantiles = np.mean([np.quantile(_inside(image), LEVELS) for image in scaled], axis=0)
    of_features = np.interp(_FEATURE_LEVELS, LEVELS, quantiles)
    contrast = float(np.diff(np.interp((0.25, 0.75), LEVELS, quantiles))[0])
    sizes: dict[str, float] = {}
    label_contrast: dict[str, float] = {}
    target: str | float | None = None
    if isinstance(case.label, str):
        sizes, label_contrast = _segmentation(case, manifest, first, np.mean(scaled, axis=0))
    elif isinstance(case.label, dict):
        target = "+".join(name for name, value in case.label.items() if value) or "no finding"
    elif case.label is not None:
        target = float(case.label)
        if get_task(manifest.task).label.is_class:
            target = manifest.labels.get(str(int(target)), str(case.label))
    return CaseDescription(
        case=case.case,
        patient=case.patient,
        site=case.site,
        acquired=case.acquired,
        channels=len(channels),
        shape=shape,
        spacing=spacing,
        scale=float(np.mean(scales)),
        quantiles=quantiles,
        contrast=contrast,
        noise=float(texture[0]),
        features=np.concatenate([of_features, [contrast], np.log(np.maximum(texture, 1e-5))]),
        sizes=sizes,
        label_contrast=label_contrast,
        target=target,
    )


def noise_level(image: np.ndarray) -> float:
    """Standard deviation of additive noise in a 2D image, by a Laplacian that plain structure does not pass.

    The median of its absolute response is used, so edges count little; pixels without any response (padding) are left
    out. Paper: Immerkaer, Fast Noise Variance Estimation, Computer Vision and Image Understanding 1996; Donoho and
    Johnstone 1994 for the median.

    Noise of 5 units on a ramp, which is structure and does not count:

    >>> import numpy as np
    >>> ramp = np.linspace(0, 1000, 128)[:, None] + np.zeros((128, 128))
    >>> round(noise_level(ramp + np.random.default_rng(0).normal(0, 5, ramp.shape)))
    5
    """
    response = np.abs(convolve(np.asarray(image, dtype=float), _LAPLACIAN, mode="reflect"))[1:-1, 1:-1]
    response = response[response > 1e-9 * max(float(np.abs(image).max()), 1e-300)]
    return float(np.median(response)) / 0.6745 / 6 if response.size else 0.0


def _channels(volume: Volume) -> list[np.ndarray]:
    array = volume.array.astype(np.float32)
    return list(np.moveaxis(array, -1, 0)) if volume.channel_last else [array]


def _scale(image: np.ndarray, path: str) -> tuple[np.ndarray, float]:
    low, high = np.quantile(_thin(_inside(image)), (0.01, 0.99))
    if not high > low:
        low, high = float(image.min()), float(image.max())
    if not high > low:
        raise InputError("the image is constant", path=path, hint="leave the case out")
    return (image - low) / (high - low), float(high - low)


def _inside(image: np.ndarray) -> np.ndarray:
    """All voxels but those that hold the exact minimum, where these are many: padding."""
    padding = image == image.min()
    share = padding.mean()
    return image[~padding] if 0.05 < share < 0.999 else image.ravel()


def _thin(values: np.ndarray) -> np.ndarray:
    return values[:: max(1, values.size // _VOXELS)]


def _canonical(volume: Volume) -> tuple[np.ndarray, tuple[int, ...], tuple[float, ...] | None]:
    shape = volume.spatial_shape
    axes = np.arange(len(shape))
    if volume.affine is not None and len(shape) == 3:
        axes = np.argsort(io_orientation(volume.affine)[:, 0])
    spacing = volume.spacing
    return axes, tuple(shape[i] for i in axes), tuple(spacing[i] for i in axes) if spacing else None


def _texture(image: np.ndarray, axis: int) -> np.ndarray:
    """Noise, then detail (RMS of difference-of-Gaussians bands), in the middle slices across ``axis``."""
    slices = [image]
    if image.ndim == 3:
        moved = np.moveaxis(image, axis, 0)
        middle = np.unique(np.linspace(0.2 * (len(moved) - 1), 0.8 * (len(moved) - 1), _SLICES).round().astype(int))
        slices = [moved[i] for i in middle if np.ptp(moved[i]) > 0] or [moved[len(moved) // 2]]
    rows = []
    for one in slices:
        blurred = [one, *(gaussian_filter(one, scale) for scale in _SCALES)]
        bands = [np.sqrt(np.mean((a - b) ** 2)) for a, b in zip(blurred, blurred[1:], strict=False)]
        rows.append([noise_level(one), *bands])
    return np.median(rows, axis=0)


def _segmentation(
    case: Case, manifest: Manifest, volume: Volume, scaled: np.ndarray
) -> tuple[dict[str, float], dict[str, float]]:
    assert isinstance(case.label, str)
    label = SafeReader(palette="index").read_volume(case.label)
    mask = label.array[..., 0] if label.channel_last else label.array
    if mask.shape != volume.spatial_shape:
        fault = f"label of {mask.shape} voxels for an image of {volume.spatial_shape}"
        raise InputError(fault, path=case.label, hint="resample the label to the image's grid")
    mapping = manifest.label_mapping
    groups = dict(list(mapping.classes.items())[1:]) or {"foreground": (1,)}
    if len(groups) == 1 and mapping.is_identity:  # a binary mask may be written as 0 and 255
        mask = (mask > 0) * 1
    spacing = volume.spacing
    solid = spacing is not None and mask.ndim == 3
    unit = float(np.prod(spacing)) / 1000 if solid and spacing else 100 / mask.size
    sizes, contrast = {}, {}
    for name, values in groups.items():
        inside = np.isin(mask, values)
        count = int(inside.sum())
        sizes[name] = count * unit
        if 0 < count < mask.size:
            contrast[name] = float(scaled[inside].mean() - scaled[~inside].mean())
    return sizes, contrast
