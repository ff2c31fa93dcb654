"""Whose batches count in BatchNorm's running statistics, when source and target batches pass through one network."""

from __future__ import annotations

from torch import nn

__all__ = ["RunningStatistics"]


class RunningStatistics:
    """Pause and resume the running averages of a network's norm layers: BatchNorm, and InstanceNorm that tracks.

    While paused, training batches are still normalised by their own statistics; only the running averages, which count
    in evaluation, stay as they are. Layers without running averages (GroupNorm, most InstanceNorm) are not concerned.

    Args:
        network: whose norm layers.

    >>> import torch
    >>> network = nn.Sequential(nn.BatchNorm1d(1))
    >>> statistics = RunningStatistics(network)
    >>> statistics.pause()
    >>> _ = network(torch.full((4, 1), 10.0))
    >>> statistics.resume()
    >>> float(network[0].running_mean)  # the batch did not count
    0.0
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = [
            (module, module.momentum)
            for module in network.modules()
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats
        ]

    def pause(self) -> None:
        """Batches count no more."""
        for layer, _ in self._layers:
            layer.momentum = 0.0

    def resume(self) -> None:
        """Batches count as before."""
        for layer, momentum in self._layers:
            layer.momentum = momentum
