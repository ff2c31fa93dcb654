"""Position embeddings and relative-position tables resized to another grid, by interpolation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["resize_positions", "resize_relative_table"]

_MODES = {1: "linear", 2: "bicubic", 3: "trilinear"}


def resize_positions(
    source: Tensor,
    target_shape: torch.Size,
    dims: int,
    source_grid: Sequence[int] | None = None,
    target_grid: Sequence[int] | None = None,
) -> Tensor | None:
    """Learned embeddings 1 x N x F for another grid of patches; ``None`` where no regular grid explains the sizes.

    A grid that is not named is taken to be square (cubic), as its shape is not stored. A token in front of the patches
    (the class token of timm and MAE) is kept where the network has one too, else left out. From 2D to 3D the plane is
    repeated along the new last axis.

    Args:
        source: 1 x N_s x F. ``target_shape``: (1, N_t, F). ``dims``: number of spatial dimensions of the network.
        source_grid, target_grid: patches per axis.

    A row that goes from 0 to 1, brought from 2 patches to 4 by bicubic interpolation, which overshoots at the ends:

    >>> import torch
    >>> source = torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(1, 4, 1)
    >>> resize_positions(source, torch.Size((1, 16, 1)), dims=2).reshape(4, 4)[0]
    tensor([-0.1055,  0.2266,  0.7734,  1.1055])
    """
    if source.ndim != 3 or source.shape[0] != 1 or source.shape[2] != target_shape[2]:
        return None
    for extra in (0, 1):
        new = _grid(target_shape[1] - extra, dims, target_grid)
        if not new:
            continue
        for given in (extra, 1):
            for source_dims in (dims, 2):
                old = _grid(source.shape[1] - given, source_dims, source_grid)
                if old:
                    tokens, grid = source[:, :extra], source[0, given:]
                    grid = _resize(grid, old, new[:source_dims])
                    grid = grid.repeat_interleave(new[-1], dim=0) if source_dims < dims else grid
                    return torch.cat([tokens, grid[None]], dim=1)
    return None


def resize_relative_table(source: Tensor, target_shape: torch.Size, dims: int) -> Tensor | None:
    """A Swin relative-position table (2w-1)^d x heads for another window; ``None`` where the sizes fit no window.

    From 2D to 3D the table is repeated along the new last axis: a bias adds, so it is not divided.

    Args:
        source: S x heads. ``target_shape``: (T, heads). ``dims``: number of spatial dimensions of the network.
    """
    if source.ndim != 2 or len(target_shape) != 2 or source.shape[1] != target_shape[1]:
        return None
    new = _side(target_shape[0], dims)
    if not new:
        return None
    old = _side(source.shape[0], dims)
    if old:
        return _resize(source, [old] * dims, [new] * dims)
    flat = _side(source.shape[0], 2)
    if dims != 3 or not flat:
        return None
    plane = _resize(source, [flat] * 2, [new] * 2)
    return plane.repeat_interleave(new, dim=0)


def _grid(count: int, dims: int, named: Sequence[int] | None) -> list[int] | None:
    """The grid of ``count`` patches: the named one if it has so many, else a square or cube."""
    if named is not None:
        return list(named) if len(named) == dims and math.prod(named) == count else None
    side = _side(count, dims)
    return [side] * dims if side else None


def _side(count: int, dims: int) -> int | None:
    side = round(math.pow(max(count, 0), 1 / dims))
    return side if side > 0 and side**dims == count else None


def _resize(rows: Tensor, old: list[int], new: list[int]) -> Tensor:
    """Interpolate N x F rows, N = prod(old), to prod(new) rows."""
    grid = rows.T.reshape(1, rows.shape[1], *old).float()
    grid = F.interpolate(grid, size=new, mode=_MODES[len(old)], align_corners=False)
    return grid.reshape(rows.shape[1], -1).T.to(rows.dtype)
