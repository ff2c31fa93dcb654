"""2D convolutions turned into 3D ones.

Carreira & Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017 (mean);
centre initialisation as in Wang et al., "Temporal Segment Networks in the Wild" and later video work.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["INFLATIONS", "inflate"]

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
    """
    if how not in INFLATIONS:
        raise ValueError(f"inflation is one of {INFLATIONS}, not {how!r}")
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
