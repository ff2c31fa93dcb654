"""Strides and kernels of a U-Net for a patch and its spacing: levels until the bottleneck is small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Topology", "fitted_patch", "topology"]

_SMALLEST = 4


@dataclass(frozen=True)
class Topology:
    """One entry per level, the first at full resolution.

    Attributes:
        strides: of the step into each level, per axis; the first is 1.
        kernels: of each level's convolutions, per axis: 1 across slices that are still thick, else 3.

    >>> Topology(strides=[[1, 1, 1], [2, 2, 1], [2, 2, 2]], kernels=[[3, 3, 1], [3, 3, 3], [3, 3, 3]]).unit
    [4, 4, 2]
    """

    strides: list[list[int]]
    kernels: list[list[int]]

    @property
    def unit(self) -> list[int]:
        """What a patch's axes must be multiples of."""
        return [math.prod(level[axis] for level in self.strides) for axis in range(len(self.strides[0]))]


def topology(patch: Sequence[int], spacing: Sequence[float], most: int) -> Topology:
    """The levels for a patch.

    An axis is halved while its step is less than twice the finest of those that can be halved, and while at least 4
    voxels of it are left; a kernel spans an axis once its step is less than twice the finest (nnU-Net's rules).

    Args:
        patch: voxels per axis.
        spacing: mm per axis.
        most: levels below the first at most.

    >>> topology([128, 128, 16], [1.0, 1.0, 5.0], 5).strides
    [[1, 1, 1], [2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2], [2, 2, 1]]
    """
    dims = len(patch)
    size, step = [float(n) for n in patch], list(spacing)
    strides = [[1] * dims]
    kernels = [_kernel(step, [1] * dims)]
    while len(strides) <= most:
        able = [axis for axis in range(dims) if size[axis] >= 2 * _SMALLEST]
        if not able:
            break
        finest = min(step[axis] for axis in able)
        stride = [2 if axis in able and step[axis] < 2 * finest else 1 for axis in range(dims)]
        size = [n / s for n, s in zip(size, stride, strict=True)]
        step = [mm * s for mm, s in zip(step, stride, strict=True)]
        strides.append(stride)
        kernels.append(_kernel(step, kernels[-1]))
    return Topology(strides, kernels)


def _kernel(step: Sequence[float], above: Sequence[int]) -> list[int]:
    finest = min(step)
    return [3 if mm < 2 * finest or before == 3 else 1 for mm, before in zip(step, above, strict=True)]


def fitted_patch(shape: Sequence[int], spacing: Sequence[float], voxels: int) -> list[int]:
    """A patch of about ``voxels``: a cube in millimetres as far as the median image reaches, then longer where it does.

    Args:
        shape: of the median image at the working spacing.
        spacing: that spacing, mm.
        voxels: about how many.

    >>> fitted_patch([200, 200, 20], [1.0, 1.0, 5.0], 64**3)
    [114, 114, 20]
    """
    if math.prod(shape) <= voxels:
        return list(shape)
    low, high = 0.0, max(n * mm for n, mm in zip(shape, spacing, strict=True))
    for _ in range(60):  # the edge of the cube, by bisection
        edge = (low + high) / 2
        if math.prod(min(n, edge / mm) for n, mm in zip(shape, spacing, strict=True)) > voxels:
            high = edge
        else:
            low = edge
    return [max(1, min(n, math.floor(low / mm + 1e-6))) for n, mm in zip(shape, spacing, strict=True)]
