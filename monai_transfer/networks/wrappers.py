"""Taking off what torch puts around a network (``DataParallel``, ``DistributedDataParallel``, ``compile``)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

__all__ = ["buffers_as_they_are", "unwrap"]


def unwrap(network: nn.Module) -> nn.Module:
    """The network itself, without ``DistributedDataParallel``, ``DataParallel`` or ``torch.compile`` around it.

    Args:
        network: bare, or wrapped in DDP or DataParallel, once or more.

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


@contextlib.contextmanager
def buffers_as_they_are(network: nn.Module) -> Iterator[None]:
    """Within it a ``DistributedDataParallel`` around the network does not copy rank 0's buffers before a forward pass.

    For further passes within one step: the copy is written in place, and the first pass's graph holds the running
    statistics that it would overwrite (torch 2.10 refuses the backward pass then, 2.13 does not).

    Args:
        network: bare or wrapped; of a bare one nothing is changed.

    >>> import torch
    >>> network = nn.BatchNorm1d(2)
    >>> with buffers_as_they_are(network):  # as a method's second pass within a step does
    ...     _ = network(torch.ones(4, 2))
    >>> int(network.num_batches_tracked)
    1
    """
    while not isinstance(network, nn.parallel.DistributedDataParallel):
        inner = getattr(network, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            yield
            return
        network = inner
    before = network.require_forward_param_sync
    network.require_forward_param_sync = False
    try:
        yield
    finally:
        network.require_forward_param_sync = before
