"""Whose batches count in the norm layers, when source and target batches pass through one network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from monai_transfer.engine.norm_statistics import RunningStatistics
from monai_transfer.errors import InputError
from monai_transfer.methods.base import Method
from monai_transfer.networks.domain_norms import DomainNorms

__all__ = ["DomainStatistics"]

MODES = ("both", "target", "kept", "domain")
_TARGET_PASSES = {f"target_{view}{what}" for view in ("", "strong_") for what in ("logits", "features")}


class DomainStatistics:
    """Tells the norm layers whose batch comes next.

    Args:
        mode: ``"both"`` domains count in the running averages, ``"target"`` alone, neither (``"kept"``: the source's
            stay), or each ``"domain"`` has layers of its own (``networks.domain_norms``); ``None``: what the method
            declares.
        method: the method that is used.

    Raises:
        InputError: an unknown mode, or one that the method passes no target image for.

    >>> from monai_transfer.methods.dsbn import Dsbn
    >>> network = nn.Sequential(nn.BatchNorm1d(1))
    >>> statistics = DomainStatistics(None, Dsbn())  # which has layers for each domain
    >>> statistics.bind(network, torch.optim.SGD(network.parameters(), 0.1))
    >>> statistics.use_source()
    >>> _ = network(torch.full((4, 1), 10.0))
    >>> statistics.use_target()
    >>> float(network[0].running_mean)
    0.0
    """

    def __init__(self, mode: str | None, method: Method) -> None:
        mode = method.statistics if mode is None else mode
        if mode not in MODES:
            raise InputError(f"no statistics {mode!r}", hint=f"one of {', '.join(MODES)}")
        self.mode = "domain" if method.domain_norms else mode
        if self.mode not in ("both", "kept") and method.needs.isdisjoint(_TARGET_PASSES):
            raise InputError(
                f"{type(method).__name__} passes no target image through the network, whose statistics could count",
                hint='pass statistics "both", or use it in fine-tuning',
            )
        self._running: RunningStatistics | None = None
        self._norms: DomainNorms | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self._pending: Mapping[str, Any] | None = None

    def bind(self, network: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
        """Take hold of the bare network; a state loaded before is applied now, before its first forward pass.

        Raises:
            InputError: layers for each domain, and no optimizer of the network that says how they learn.
        """
        self._running = RunningStatistics(network) if self.mode in ("target", "kept") else None
        if self.mode == "domain" and self._norms is None:
            if optimizer is None:
                raise InputError(
                    "norm layers of each domain learn as the network does, and its optimizer is not known",
                    hint="pass optimizer=",
                )
            self._norms = DomainNorms(network)
            self.optimizer = self._norms.make_optimizer(optimizer)
            if self._pending is not None:
                self.load_state_dict(self._pending)
                self._pending = None

    def use_source(self) -> None:
        """A source batch comes next."""
        if self._running is not None:
            self._running.pause()
        if self._norms is not None:
            self._norms.use_source()

    def use_target(self) -> None:
        """A target batch comes next, or validation."""
        if self._running is not None and self.mode == "kept":
            self._running.pause()
        elif self._running is not None:
            self._running.resume()
        if self._norms is not None:
            self._norms.use_target()

    def finish(self) -> None:
        """The run is over: layers count as they did before it; with ``"domain"`` they are the target's."""
        self.use_target()
        if self._running is not None:
            self._running.resume()

    def state_dict(self) -> dict[str, Any] | None:
        """What is kept for the source and its optimizer's state; None where nothing is."""
        if self._norms is None:
            return dict(self._pending) if self._pending is not None else None
        own = self.optimizer.state_dict() if self.optimizer is not None else {}
        return {"layers": self._norms.state_dict(), "optimizer": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore; before ``bind`` it is kept."""
        if self._norms is None:
            self._pending = state
            return
        self._norms.load_state_dict(state["layers"])
        if self.optimizer is not None and state["optimizer"]:
            self.optimizer.load_state_dict(state["optimizer"])
