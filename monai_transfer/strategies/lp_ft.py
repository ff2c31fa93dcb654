"""LP-FT: fit the head on frozen features first, then fine-tune everything from that head at a lower rate.

Paper: Kumar, Raghunathan, Jones, Ma and Liang, Fine-Tuning can Distort Pretrained Features and Underperform
Out-of-Distribution, ICLR 2022, arXiv:2202.10054

A new, random head sends large gradients into good features and distorts them where the target data do not reach; a head
that already fits does not. The point is accuracy out of distribution (about ten points over full fine-tuning in the
paper), not in distribution. As in the paper half of the run goes to each phase by default.
"""

from __future__ import annotations

from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.strategies.base import Scheduled, head_modules

__all__ = ["LpFt"]


class LpFt(Scheduled):
    """Head only until ``probe`` of the run is done (backbone bitwise frozen), then everything.

    Args:
        probe: share of the run for the linear probe, in (0, 1).
        finetune_lr_scale: learning rate of the second phase, as a share of the first's.
        head: the head's module name or names, where it is not found by itself.

    Raises:
        InputError: a share is out of range, or (from ``apply``) the head cannot be told.

    >>> import torch
    >>> from monai_transfer.strategies.lp_ft import LpFt
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> strategy = LpFt(probe=0.5)
    >>> network = strategy.apply(network)
    >>> len(strategy.param_groups(network))  # the head from the start, the rest from half of the run
    2
    """

    def __init__(self, probe: float = 0.5, finetune_lr_scale: float = 0.1, head: str | list[str] | None = None) -> None:
        if not 0 < probe < 1:
            raise InputError(
                f"probe is a share of the run between 0 and 1, got {probe}", hint="0.5 fits the head in the first half"
            )
        if not finetune_lr_scale > 0:
            raise InputError(f"finetune_lr_scale must be positive, got {finetune_lr_scale}", hint="0.1 is usual")
        self.probe, self.finetune_lr_scale, self.head = probe, finetune_lr_scale, head

    def groups(self, network: nn.Module) -> list[list[str]]:
        """Backbone, head."""
        heads = [network.get_submodule(name) for name in head_modules(network, self.head)]
        inside = {id(p) for head in heads for p in head.parameters()}
        backbone: list[str] = []
        head: list[str] = []
        for name, parameter in network.named_parameters():
            (head if id(parameter) in inside else backbone).append(name)
        return [backbone, head]

    def rates(self, progress: float, count: int) -> list[float]:
        if progress < self.probe:
            return [0.0, 1.0]
        return [self.finetune_lr_scale] * 2
