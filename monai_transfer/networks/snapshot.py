"""A network's weights at one moment, kept in a method's state, to compare the weights of later with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

__all__ = ["Snapshot"]


class Snapshot(nn.Module):
    """Named tensors as buffers: they move with the module they belong to, and lie in its ``state_dict``.

    Args:
        tensors: by parameter name; copied.

    >>> import torch
    >>> layer = nn.Linear(2, 1)
    >>> kept = Snapshot(dict(layer.named_parameters()))
    >>> with torch.no_grad():
    ...     _ = layer.weight.add_(1)
    >>> {name: round(float((now - then).abs().max()), 4) for name, now, then in kept.pairs(layer)}
    {'weight': 1.0, 'bias': 0.0}
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name.replace(".", "/"), tensor.detach().clone())  # torch allows no dots

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Parameter names and tensors."""
        for name, tensor in self.named_buffers():
            yield name.replace("/", "."), tensor

    def pairs(self, network: nn.Module) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
        """Name, present parameter and kept tensor, of the parameters that learn at present."""
        named = dict(network.named_parameters())
        for name, tensor in self.items():
            parameter = named.get(name)
            if parameter is not None and parameter.requires_grad:
                yield name, parameter, tensor
