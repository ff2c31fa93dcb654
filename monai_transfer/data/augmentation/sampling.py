"""Reading a patch out of an image through an affine map: only the voxels that it needs are touched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["outside", "sample"]


def _reach(matrix: np.ndarray, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest index per axis of the input that an output of ``size`` reads."""
    linear, offset = matrix[:-1, :-1], matrix[:-1, -1]
    ends = linear * (np.asarray(size, dtype=float) - 1)
    return offset + np.minimum(ends, 0).sum(1), offset + np.maximum(ends, 0).sum(1)


def outside(matrix: np.ndarray, size: Sequence[int], shape: Sequence[int]) -> float:
    """Share of an output of ``size`` that lies outside an image of ``shape``, so that padding fills it.

    Args:
        matrix: from output to input index, (d + 1) x (d + 1).
        size, shape: voxels per axis.

    Example:
        >>> outside(np.array([[1.0, 0, -2], [0, 1, 0], [0, 0, 1]]), (8, 8), (20, 20))
        0.25
    """
    axes = np.meshgrid(*(np.arange(n, dtype=float) for n in size), indexing="ij")
    inside = np.ones(tuple(size), dtype=bool)
    for row, n in zip(matrix[:-1], shape, strict=True):
        place = sum(factor * axis for factor, axis in zip(row[:-1], axes, strict=True)) + row[-1]
        inside &= (place > -0.5) & (place < n - 0.5)
    return float(1 - inside.mean())


def sample(image: Tensor, matrix: np.ndarray, size: Sequence[int], mode: str, padding_mode: str) -> Tensor:
    """An output of ``size`` whose voxel at index x is ``image`` at ``matrix @ x``.

    A map that only shifts by whole voxels copies and does not interpolate.

    Args:
        image: C x spatial, any type; what comes back has the same type.
        matrix: from output to input index, (d + 1) x (d + 1).
        size: voxels per axis of the output.
        mode: ``"bilinear"`` (in 3D trilinear) or ``"nearest"``.
        padding_mode: ``"zeros"``, ``"border"`` or ``"reflection"``.

    Half a voxel to the right: each output is the mean of two neighbours.

    >>> shift = np.array([[1, 0, 0], [0, 1, 0.5], [0, 0, 1]])
    >>> sample(torch.tensor([[[0.0, 2.0, 6.0]]]), shift, (1, 2), "bilinear", "zeros").tolist()
    [[[1.0, 4.0]]]
    """
    shape, dims = image.shape[1:], len(size)
    low, high = _reach(matrix, size)
    linear, offset = matrix[:-1, :-1], matrix[:-1, -1].copy()
    whole = np.allclose(linear, np.eye(dims), atol=1e-9) and np.allclose(offset, offset.round(), atol=1e-6)
    start = np.floor(low + 1e-6).astype(int)
    stop = np.ceil(high - 1e-6).astype(int) + 1
    if whole and (start >= 0).all() and (stop <= np.asarray(shape)).all():
        return image[(slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))].clone()
    if padding_mode != "reflection":  # a mirror image may be read from anywhere
        margin = 1
        start = np.clip(start - margin, 0, np.asarray(shape) - 1)
        stop = np.clip(stop + margin, start + 1, shape)
        image = image[(slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))]
        offset = offset - start
    inner = image.shape[1:]
    exact = torch.float64 if image.dtype in (torch.float64, torch.int64, torch.int32) else torch.float32
    ranges = [torch.arange(n, dtype=exact, device=image.device) for n in size]
    places = []
    for row, shift, n in zip(linear, offset, inner, strict=True):
        place = torch.full((1,) * dims, float(shift), dtype=exact, device=image.device)
        for axis, (factor, values) in enumerate(zip(row, ranges, strict=True)):
            if factor:
                place = place + float(factor) * values.view([-1 if a == axis else 1 for a in range(dims)])
        # index -> [-1, 1] between the outer faces of the voxels, so that one voxel is a length as well
        places.append(((2 * place + 1) / n - 1).expand(tuple(size)))
    grid = torch.stack(places[::-1], dim=-1)
    out = F.grid_sample(image[None].to(exact), grid[None], mode=mode, padding_mode=padding_mode, align_corners=False)[0]
    if not image.is_floating_point():
        out = out.round()
    return out.to(image.dtype)
