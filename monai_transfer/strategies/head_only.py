"""Head only (linear probe): the backbone stays exactly as it is, the last layer learns.

Paper: Alain and Bengio, Understanding intermediate layers using linear classifier probes, ICLR workshop 2017,
arXiv:1610.01644

Frozen means bitwise unchanged: no gradients, norm layers use their stored statistics and do not count, dropout is off,
also inside a stock trainer, which calls ``network.train()`` in every iteration. MONAI's ``freeze_layers`` leaves the
running statistics moving. Features of a frozen backbone can be computed once and cached.
"""

from __future__ import annotations

from torch import nn

from monai_transfer.networks.freezing import freeze_all_but
from monai_transfer.strategies.base import Strategy, head_modules

__all__ = ["HeadOnly"]


class HeadOnly(Strategy):
    """Only the head learns; it is in training mode as usual.

    Args:
        head: the head's module name or names (``"class_layers.out"``), where it is not found by itself.

    Raises:
        InputError: (from ``apply``) the head is not in the network, or cannot be told.

    >>> import torch
    >>> from monai_transfer.strategies.head_only import HeadOnly
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> network = HeadOnly().apply(network)
    >>> [name for name, p in network.named_parameters() if p.requires_grad]
    ['2.weight', '2.bias']
    """

    def __init__(self, head: str | list[str] | None = None) -> None:
        self.head = head

    def apply(self, network: nn.Module) -> nn.Module:
        super().apply(network)
        heads = head_modules(network, self.head)
        freeze_all_but(network, [network.get_submodule(name) for name in heads])
        return network
