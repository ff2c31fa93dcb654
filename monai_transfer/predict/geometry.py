"""From the grid that a network saw back to an image's own grid, axis by axis, without a grid of coordinates.

Orientation, spacing, cropping, padding and flipping keep the axes of the two grids parallel, so linear interpolation
between them is separable: one pass of a two-point mean per axis, in which any part of the result can be asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

__all__ = ["AxisMap", "GridMap", "NotSeparable", "grid_map"]

_KEEP_AXES = {
    *("Orientation", "Spacing", "SpatialResample", "Flip", "RandFlip", "Transpose", "Rotate90", "EnsureChannelFirst"),
    *("SpatialPad", "BorderPad", "DivisiblePad", "Pad", "CropForeground", "SpatialCrop", "CenterSpatialCrop", "Crop"),
    *("ResizeWithPadOrCrop",),
}
_LINEAR = ("bilinear", "trilinear", "1", "constant")
_RESAMPLE = {"Spacing", "SpatialResample"}
_CUT = {"CropForeground", "SpatialCrop", "CenterSpatialCrop", "Crop", "ResizeWithPadOrCrop"}


class NotSeparable(Exception):
    """The image's grid is not reached axis by axis: the bundle's own inverse has to do it."""


@dataclass(frozen=True)
class AxisMap:
    """Where the voxels of one axis of the image lie on one axis of the network's grid.

    Attributes:
        image_axis: which axis of the image.
        low, high: for every voxel of it, the two voxels of the network's axis beside it.
        share: what ``high`` counts in the mean.
        outside: which of them lie outside of what the network saw.

    Four voxels of the image on two of the network:

    >>> low, high = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 1])
    >>> axis = AxisMap(0, low, high, torch.tensor([0.0, 0.25, 0.75, 0.0]), torch.zeros(4, dtype=torch.bool))
    >>> axis.apply(torch.tensor([0.0, 1.0]), dim=0).tolist(), axis.exact
    ([0.0, 0.25, 0.75, 1.0], False)
    """

    image_axis: int
    low: Tensor
    high: Tensor
    share: Tensor
    outside: Tensor

    @property
    def exact(self) -> bool:
        """Whether no interpolation is needed."""
        return bool((self.share == 0).all())

    def apply(self, values: Tensor, dim: int) -> Tensor:
        """Interpolate ``values`` along ``dim``."""
        if self.exact:
            if len(self.low) == values.shape[dim] and bool((self.low == torch.arange(len(self.low))).all()):
                return values
            return values.index_select(dim, self.low.to(values.device))
        low = values.index_select(dim, self.low.to(values.device))
        high = values.index_select(dim, self.high.to(values.device))
        shape = [1] * values.ndim
        shape[dim] = -1
        return low.lerp_(high, self.share.to(values.device, values.dtype).reshape(shape))


@dataclass(frozen=True)
class GridMap:
    """The maps of all axes of the network's grid, in their order, and the image's shape."""

    axes: tuple[AxisMap, ...]
    shape: tuple[int, ...]


def grid_map(image: MetaTensor, nearest: bool = False) -> GridMap:
    """How to come from a prepared image (C x spatial) back to the grid that it was read on.

    Args:
        image: with its affine, the original one, and its applied operations.
        nearest: take the nearest voxel instead of interpolating.

    Raises:
        NotSeparable: a transform turned or bent the grid, or one is not known here.
    """
    dims = image.ndim - 1
    cut = _check_operations(image.applied_operations, nearest)
    original = image.meta.get("original_affine")
    if original is None:  # a picture
        if any(operation.get("class") != "EnsureChannelFirst" for operation in image.applied_operations):
            raise NotSeparable("the image has no affine of its own")
        original = image.affine
    shape = _original_shape(image)
    matrix = np.linalg.inv(_square(image.affine, dims)) @ _square(original, dims)
    axes = []
    for axis, size in enumerate(image.shape[1:]):
        row = matrix[axis, :dims]
        image_axis = int(np.abs(row).argmax())
        rest = np.delete(np.abs(row) * np.asarray(shape), image_axis)
        if len(rest) and rest.max() > 1e-3:  # voxels, at the far end of the image
            raise NotSeparable("the grids are turned against each other")
        place = row[image_axis] * np.arange(shape[image_axis]) + matrix[axis, dims]
        place = np.where(np.abs(place - np.round(place)) < 1e-4, np.round(place), place)
        # what was cut off comes back as zeros, which interpolation mixes in up to the next voxel; without a cut, what
        # lies beyond is rounding and takes the border's value
        outside = (place <= -1) | (place >= size) if cut else np.zeros(len(place), dtype=bool)
        place = place.clip(0, size - 1)
        place = np.round(place) if nearest else place
        low = np.floor(place).astype(np.int64)
        high = np.where(place > low, low + 1, low)  # where it is exact, the next voxel is not asked for
        axes.append(
            AxisMap(
                image_axis,
                torch.from_numpy(low),
                torch.from_numpy(high),
                torch.from_numpy((place - low).astype(np.float32)),
                torch.from_numpy(outside),
            )
        )
    if sorted(one.image_axis for one in axes) != list(range(dims)):
        raise NotSeparable("the grids are turned against each other")
    return GridMap(tuple(axes), shape)


def _square(affine: Any, dims: int) -> np.ndarray:
    full = np.asarray(affine, dtype=float)
    if full.ndim == 3:
        full = full[0]
    return full[np.ix_([*range(dims), -1], [*range(dims), -1])]


def _original_shape(image: MetaTensor) -> tuple[int, ...]:
    for operation in image.applied_operations:
        size = operation.get("orig_size")
        if size is not None and len(size) == image.ndim - 1:
            return tuple(int(n) for n in size)
    return tuple(int(n) for n in image.shape[1:])


def _check_operations(operations: Sequence[Any], nearest: bool) -> bool:
    """Whether one of them cuts; refuses those that are not known to keep the axes."""
    cut = False
    for operation in operations:
        name = str(operation.get("class", ""))
        name = name if name in _KEEP_AXES else name.removesuffix("d")
        if name not in _KEEP_AXES:
            raise NotSeparable(f"{name} may turn or bend the grid")
        mode = (operation.get("extra_info") or {}).get("mode")
        if (
            not nearest
            and mode is not None
            and str(getattr(mode, "value", mode)) not in ("bilinear", "1", "trilinear", "constant")
        ):
            raise NotSeparable(f"{name} interpolates by {mode}")
        if cut and name in _RESAMPLE:
            raise NotSeparable("it was cut before it was resampled")
        cut |= name in _CUT
    return cut
