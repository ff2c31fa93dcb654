"""The change of a layer's weight that a low-rank adapter stands for: s B A in the order of the weight's elements.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, arXiv:2106.09685.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.conv import _ConvTransposeNd

__all__ = ["low_rank_change"]


def low_rank_change(layer: Any, first: Tensor, second: Tensor) -> Tensor:
    """B A, with as many elements as the layer's weight and in its order.

    Args:
        layer: the linear layer, convolution or transposed convolution that is adapted.
        first: A, r x in per group x kernel; of a transposed convolution in x r x kernel.
        second: B, out x r.

    >>> import torch
    >>> low_rank_change(torch.nn.Linear(2, 3), torch.ones(1, 2), torch.full((3, 1), 2.0)).tolist()
    [[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]
    """
    if isinstance(layer, _ConvTransposeNd):
        groups, rank = layer.groups, second.shape[1]
        a = first.view(groups, layer.in_channels // groups, rank, -1)
        b = second.view(groups, layer.out_channels // groups, rank)
        return torch.einsum("girk,gor->giok", a, b).contiguous()
    return second @ first.flatten(1)
