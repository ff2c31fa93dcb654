"""2D convolutions turned into 3D ones.

Carreira & Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017 (mean);
centre initialisation as in Wang et al., "Temporal Segment Networks in the Wild" and later video work.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from monai_transfer.errors import InputError

__all__ = ["INFLATIONS", "inflate", "widen_kernel"]

INFLATIONS = ("center", "mean")


def inflate(weight: Tensor, depth: int, how: str = "center", *, module: nn.Module | None = None) -> Tensor:
    """A 2D kernel along a new last axis (MONAI's order is H, W, D), so that the response to a volume whose slices are
    all alike is the 2D response, away from the border.

    Args:
        weight: O x I x H x W. ``depth``: size of the new axis.
        how: ``center``: the kernel stands in the middle slice, zeros around it. ``mean``: it stands in every slice,
            divided by the depth.
        module: the convolution it is for. A transposed one with a stride shares its slices among several outputs, so
            each group of slices that meets one output is normalised by itself.

    Returns:
        O x I x H x W x depth.

    Raises:
        InputError: no such way to inflate.

    >>> import torch
    >>> from monai_transfer.weights.inflation import inflate
    >>> inflate(torch.ones(1, 1, 3, 3), 3).sum((0, 1, 2, 3))  # the 2D kernel in the middle slice
    tensor([0., 9., 0.])
    """
    if how not in INFLATIONS:
        raise InputError(f"inflation is one of {', '.join(INFLATIONS)}, not {how!r}", hint="the default is center")
    stride = int(module.stride[-1]) if isinstance(module, nn.ConvTranspose3d) else 1
    profile = torch.zeros(depth, dtype=weight.dtype)
    if stride > 1:
        groups = torch.arange(depth) % stride
        profile = 1 / torch.bincount(groups, minlength=stride)[groups].to(weight.dtype)
    elif how == "center":
        profile[depth // 2] = 1
    else:
        profile += 1 / depth
    return weight.unsqueeze(-1) * profile


def widen_kernel(weight: Tensor, shape: torch.Size, module: _ConvNd) -> Tensor | None:
    """An odd kernel in the middle of a larger odd one, zeros around it: the same response, where padding is ``same``.

    Args:
        weight: O x I x kernel. ``shape``: of the larger weight. ``module``: the convolution it is for.

    Returns:
        ``None`` where the shapes or the convolution (stride, dilation, padding, transposed) do not allow it.

    >>> import torch
    >>> small, large = torch.ones(1, 1, 3, 3), nn.Conv2d(1, 1, 5, padding=2)
    >>> widened = widen_kernel(small, large.weight.shape, large)
    >>> widened[0, 0, 0].tolist(), widened.sum().item()  # zeros around the nine
    ([0.0, 0.0, 0.0, 0.0, 0.0], 9.0)
    """
    if module.transposed or weight.ndim != len(shape) or weight.shape[:2] != shape[:2] or weight.shape == shape:
        return None
    kernels = list(zip(weight.shape[2:], shape[2:], strict=True))
    same = module.padding == tuple(large // 2 for _, large in kernels)
    if not same or any(step != 1 for step in (*module.stride, *module.dilation)):
        return None
    if any(small > large or small % 2 == 0 or large % 2 == 0 for small, large in kernels):
        return None
    return F.pad(weight, [side for small, large in reversed(kernels) for side in [(large - small) // 2] * 2])
