"""Taking off what torch puts around a network (``DataParallel``, ``DistributedDataParallel``, ``compile``)."""

from __future__ import annotations

from torch import nn

__all__ = ["unwrap"]


def unwrap(network: nn.Module) -> nn.Module:
    """The network itself, without ``DistributedDataParallel``, ``DataParallel`` or ``torch.compile`` around it.

    >>> import torch
    >>> from monai_transfer.networks.wrappers import unwrap
    >>> network = torch.nn.Linear(2, 1)
    >>> unwrap(torch.nn.DataParallel(network)) is network
    True
    """
    while True:
        if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):
            network = inner
        else:
            return network
