"""Which sizes of images a network takes, and whether it answers for each voxel: asked of an empty copy of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from monai_transfer.networks.copying import meta_copy
from monai_transfer.networks.output_forms import main_scores

__all__ = ["InputSizes", "input_sizes"]

_SIZES = {1: 65, 2: 66, 4: 68, 8: 72, 16: 80, 32: 96, 64: 192}
"""Multiples of each factor that are none of twice the factor."""


@dataclass(frozen=True)
class InputSizes:
    """What a network takes.

    Attributes:
        factor: every axis must be a multiple of it.
        dense: there is an output for every voxel.

    A classifier takes any size, and answers for the whole image:

    >>> from monai.networks.nets import DenseNet121
    >>> input_sizes(DenseNet121(2, 1, 4), channels=1, dims=2)
    InputSizes(factor=1, dense=False)
    """

    factor: int
    dense: bool


def input_sizes(network: nn.Module, channels: int, dims: int) -> InputSizes | None:
    """Run an empty copy (``meta`` device: shapes, no storage) on images of several sizes.

    Args:
        network: the bare network; nothing of it is touched.
        channels: of its images.
        dims: spatial dimensions, 2 or 3.

    Returns:
        What the first size that passes tells; ``None`` where none does (one fixed size, values are looked at, or the
        answer is coarser than the image).

    Example:
        Four halvings: images of 40 x 48 pass, of 40 x 40 do not.

        >>> from monai.networks.nets import UNet
        >>> input_sizes(UNet(2, 1, 2, (4, 8, 8, 8, 8), (2, 2, 2, 2)), channels=1, dims=2)
        InputSizes(factor=16, dense=True)
    """
    empty = meta_copy(network).eval()
    for factor, size in _SIZES.items():
        image = torch.empty((1, channels, *[size] * dims), device="meta")
        try:
            with torch.no_grad():
                answer = main_scores(empty, image)
        except Exception:  # what a layer says to a size that it does not take; not all kinds are documented
            continue
        if answer.ndim < image.ndim:
            return InputSizes(factor, False)
        if answer.shape[2:] == image.shape[2:]:  # a U-Net with one stride answers 66 voxels to 65
            return InputSizes(factor, True)
    return None
