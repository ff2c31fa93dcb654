"""Sees a network's training passes: what went in, what came out, and that a source batch is about to begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["ForwardWatch"]


class ForwardWatch:
    """Hooks on a network, for loops that hand over a prediction without its image, or no moment before the pass.

    Args:
        network: the bare network.
        before: called before each training pass that is not one of the term's own.

    Attributes:
        image, logits: of the last training pass.
        passes: how many there were.

    >>> network = nn.Linear(2, 1)
    >>> watch = ForwardWatch(network)
    >>> _ = network(torch.ones(4, 2))
    >>> watch.passes, watch.image.shape, watch.logits.shape
    (1, torch.Size([4, 2]), torch.Size([4, 1]))
    """

    def __init__(self, network: nn.Module, before: Callable[[], None] | None = None) -> None:
        self.image: Any = None
        self.logits: Any = None
        self.passes = 0
        self._before, self._paused = before, False
        self._handles = [
            network.register_forward_pre_hook(self._enter),
            network.register_forward_hook(self._leave),
        ]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Passes in this context are not the source's."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def forget(self) -> None:
        """Let go of the last pass, so that no graph is kept alive."""
        self.image = self.logits = None

    def remove(self) -> None:
        """Take the hooks off the network."""
        for handle in self._handles:
            handle.remove()

    def _seen(self, network: nn.Module) -> bool:
        return network.training and torch.is_grad_enabled() and not self._paused

    def _enter(self, network: nn.Module, _inputs: tuple) -> None:
        if self._seen(network) and self._before is not None:
            self._before()

    def _leave(self, network: nn.Module, inputs: tuple, output: Any) -> None:
        if self._seen(network):
            self.image, self.logits = inputs[0] if inputs else None, output
            self.passes += 1
