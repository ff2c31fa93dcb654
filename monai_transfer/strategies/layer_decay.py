"""Layer-wise learning rate decay: the nearer to the input, the slower.

    lr_i = lr * gamma^(L - i),   i = 0 (stem) ... L (head)

Paper: Clark, Luong, Le and Manning, ELECTRA, ICLR 2020, arXiv:2003.10555; for vision Bao, Dong, Piao and Wei, BEiT,
ICLR 2022, arXiv:2106.08254

The levels are those of ``networks.depth``: blocks of a transformer, stages of a CNN, resolutions of a U-Net on its way
down and up. Parameters of one dimension or none (biases, affine norm parameters) get no weight decay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.networks.depth import depth_groups
from monai_transfer.networks.wrappers import unwrap
from monai_transfer.strategies.base import ParamGroup, Strategy, learning_groups

__all__ = ["LayerDecay"]


class LayerDecay(Strategy):
    """Everything learns, each level at its own rate, relative to the one that the optimizer is made with.

    Args:
        gamma: rate of a level over that of the level above it, in (0, 1].
        groups: the levels from stem to head, where they are not found by themselves; see ``depth_groups``.

    Raises:
        InputError: gamma is out of range, or (from ``param_groups``) the groups do not fit the network.

    >>> import torch
    >>> from monai_transfer.strategies.layer_decay import LayerDecay
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
    >>> strategy = LayerDecay(gamma=0.5)
    >>> optimizer = torch.optim.SGD(strategy.param_groups(strategy.apply(network)), lr=1.0)
    >>> sorted({group["lr"] for group in optimizer.param_groups})  # from the input to the head
    [0.25, 0.5, 1.0]
    """

    def __init__(self, gamma: float = 0.75, groups: Sequence[str | Sequence[str]] | None = None) -> None:
        if not 0 < gamma <= 1:
            raise InputError(f"gamma lies in (0, 1], got {gamma}", hint="0.75 is usual; 1 is no decay")
        self.gamma, self.groups = gamma, groups

    def param_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Up to two groups for each level, from the stem to the head: with weight decay and without."""
        core = unwrap(network)
        named = dict(core.named_parameters())
        levels = depth_groups(core, self.groups)
        result: list[dict[str, Any]] = []
        for index, names in enumerate(levels):
            scale = self.gamma ** (len(levels) - 1 - index)
            parameters = [named[name] for name in names]
            result.append(ParamGroup([p for p in parameters if p.ndim > 1], scale))
            result.append(ParamGroup([p for p in parameters if p.ndim <= 1], scale, weight_decay=0.0))
        return learning_groups(self, network, result)
