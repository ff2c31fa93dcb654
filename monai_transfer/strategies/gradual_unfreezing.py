"""Gradual unfreezing: the head learns first, then one level after another joins from the top down.

Paper: Howard and Ruder, Universal Language Model Fine-tuning for Text Classification, ACL 2018, arXiv:1801.06146

The paper unfreezes one layer per epoch and gives each lower layer the rate of the one above divided by 2.6. Here the
unfreezing is spread evenly over a share of the run, so that deep networks and short runs get the same shape; with a run
of E epochs and L levels, ``until = (L - 1) / E`` is the paper's schedule. Levels are those of ``networks.depth``.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.networks.depth import depth_groups
from monai_transfer.strategies.base import Scheduled

__all__ = ["GradualUnfreezing"]


class GradualUnfreezing(Scheduled):
    """Levels join from the head down until everything learns; those that wait are bitwise frozen.

    Args:
        until: share of the run at which the last level (the stem) joins, in (0, 1).
        lr_ratio: rate of a level over that of the level below it; 1 gives all the same. With many levels the default
            leaves little to the lowest: 2.6 over ten levels is a factor of 14 000.
        groups: the levels from stem to head, where they are not found by themselves; see ``depth_groups``.

    Raises:
        InputError: a value is out of range, or (from ``apply``) the groups do not fit the network.

    >>> import torch
    >>> from monai_transfer.strategies.gradual_unfreezing import GradualUnfreezing
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
    >>> strategy = GradualUnfreezing()
    >>> len(strategy.param_groups(strategy.apply(network)))  # one group per layer, from the head downwards
    3
    """

    def __init__(
        self, until: float = 0.5, lr_ratio: float = 2.6, groups: Sequence[str | Sequence[str]] | None = None
    ) -> None:
        if not 0 < until < 1:
            raise InputError(
                f"until is a share of the run between 0 and 1, got {until}",
                hint="0.5 has all unfrozen at half of the run",
            )
        if not lr_ratio > 0:
            raise InputError(f"lr_ratio must be positive, got {lr_ratio}", hint="2.6 is ULMFiT's")
        self.until, self.lr_ratio, self.named_groups = until, lr_ratio, groups

    def groups(self, network: nn.Module) -> list[list[str]]:
        """The levels, stem first."""
        return depth_groups(network, self.named_groups)

    def rates(self, progress: float, count: int) -> list[float]:
        steps = max(count - 1, 1)
        # in whole levels, with a tolerance for progress that is a rounded quotient of iterations
        joined = 1 + int(progress / self.until * steps + 1e-9)
        return [1.0 if count - index <= joined else 0.0 for index in range(count)]

    def scales(self, count: int) -> list[float]:
        return [self.lr_ratio ** -(count - 1 - index) for index in range(count)]
