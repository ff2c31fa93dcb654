"""Domain-specific batch normalisation: each domain has its own statistics, scale and shift; all else is shared.

Paper: Chang, You, Seo, Kwak and Han, Domain-Specific Batch Normalization for Unsupervised Domain Adaptation, CVPR 2019,
arXiv:1906.03950

The network's own layers are those of the target, so that what is validated, saved and exported is a plain network that
needs nothing of this package. The source's live beside it, and change places with them for the source's forward passes:
the tensors of a layer are exchanged, not the layer, so hooks and wrappers stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from monai_transfer.errors import InputError
from monai_transfer.networks.optimizer_like import optimizer_like

__all__ = ["DomainNorms"]


class DomainNorms(nn.Module):
    """The source's batch-normalisation layers of a network whose own ones are the target's; both start the same.

    Args:
        network: the bare network.

    Raises:
        InputError: it has no BatchNorm layer with running statistics.

    >>> network = nn.Sequential(nn.BatchNorm1d(1))
    >>> norms = DomainNorms(network)
    >>> norms.use_source()
    >>> _ = network(torch.full((4, 1), 10.0))
    >>> norms.use_target()
    >>> float(network[0].running_mean)  # the source's batch left the target's statistics alone
    0.0
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # a plain list of modules is not registered: they stay the network's
        self._layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
        if not self._layers:
            raise InputError(
                f"{type(network).__name__} has no BatchNorm layer to keep for each domain",
                hint='use a network with BatchNorm, or statistics "both"',
            )
        self.source = nn.ModuleList(_twin(layer) for layer in self._layers)
        self.on_source = False

    def use_source(self) -> None:
        """From now on the network normalises as the source."""
        self._exchange(True)

    def use_target(self) -> None:
        """From now on the network normalises as the target, as it does outside a training step."""
        self._exchange(False)

    def _exchange(self, source: bool) -> None:
        if source == self.on_source:
            return
        for ours, theirs in zip(self._layers, self.source, strict=True):
            ours._parameters, theirs._parameters = theirs._parameters, ours._parameters
            ours._buffers, theirs._buffers = theirs._buffers, ours._buffers
        self.on_source = source

    def make_optimizer(self, of_network: torch.optim.Optimizer) -> torch.optim.Optimizer | None:
        """An optimizer of the same kind for the source's scales and shifts, with the options of the target's."""
        twins = {
            id(ours): theirs
            for layer, twin in zip(self._layers, self.source, strict=True)
            for ours, theirs in zip(layer.parameters(), twin.parameters(), strict=True)
            if ours.requires_grad
        }
        groups: list[dict[str, Any]] = []
        for index, group in enumerate(of_network.param_groups):
            chosen = [twins[id(p)] for p in group["params"] if id(p) in twins]
            if chosen:
                groups.append({**group, "params": chosen, "follows": index})
        return optimizer_like(of_network, groups) if groups else None

    @staticmethod
    def follow(own: torch.optim.Optimizer, of_network: torch.optim.Optimizer) -> None:
        """Take over the learning rates of the network's optimizer, as its scheduler has set them."""
        for group in own.param_groups:
            group["lr"] = of_network.param_groups[group["follows"]]["lr"]


def _twin(layer: nn.Module) -> nn.Module:
    """The layer's tensors alone, copied."""
    twin = nn.Module()
    for name, parameter in layer._parameters.items():
        copied = None if parameter is None else nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
        twin.register_parameter(name, copied)
    for name, buffer in layer._buffers.items():
        twin.register_buffer(name, None if buffer is None else buffer.clone())
    return twin
