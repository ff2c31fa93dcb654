"""Full fine-tuning: every parameter learns, the transferred part more slowly where that is asked for.

Paper: Yosinski, Clune, Bengio and Lipson, How transferable are features in deep neural networks?, NeurIPS 2014,
arXiv:1411.1792
"""

from __future__ import annotations

from typing import Any

from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.networks.wrappers import unwrap
from monai_transfer.strategies.base import ParamGroup, Strategy, head_modules, learning_groups

__all__ = ["Full"]


class Full(Strategy):
    """Everything learns, norm statistics included.

    Args:
        backbone_lr_scale: learning rate of all but the head, as a share of the optimizer's; 0.1 is usual where the
            head is new and the backbone transferred. Below 1 there are two groups, backbone first.
        head: the head's module name or names, where it is not found by itself; only used with a scale other than 1.

    Raises:
        InputError: the scale is not positive, or the head is not in the network.

    >>> import torch
    >>> from monai_transfer.strategies.full import Full
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> strategy = Full(backbone_lr_scale=0.1)
    >>> groups = strategy.param_groups(strategy.apply(network))
    >>> optimizer = torch.optim.AdamW(groups, lr=1e-3)
    >>> sorted({group["lr"] for group in optimizer.param_groups})  # the transferred part, the head
    [0.0001, 0.001]
    """

    def __init__(self, backbone_lr_scale: float = 1.0, head: str | list[str] | None = None) -> None:
        if not backbone_lr_scale > 0:
            raise InputError(
                f"backbone_lr_scale must be positive, got {backbone_lr_scale}",
                hint="use strategies.head_only.HeadOnly to leave the backbone as it is",
            )
        self.backbone_lr_scale, self.head = backbone_lr_scale, head

    def param_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """One group, or backbone and head when their rates differ."""
        if self.backbone_lr_scale == 1.0:
            return super().param_groups(network)
        core = unwrap(network)
        head = [p for module in head_modules(core, self.head) for p in core.get_submodule(module).parameters()]
        known = {id(p) for p in head}
        backbone = [p for p in core.parameters() if id(p) not in known]
        return learning_groups(self, network, [ParamGroup(backbone, self.backbone_lr_scale), ParamGroup(head)])
