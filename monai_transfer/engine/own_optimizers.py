"""The optimizers of what is a method's own, critics and norm layers, stepped whenever the network's is."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from monai_transfer.engine.domain_statistics import DomainStatistics
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.domain_norms import DomainNorms
from monai_transfer.networks.optimizer_like import optimizer_like

__all__ = ["OwnOptimizers", "detached"]


def detached(fields: Fields) -> Fields:
    """The same fields without their graph.

    Args:
        fields: what a method is given.

    >>> import torch
    >>> features = torch.ones(2, 3, requires_grad=True)
    >>> detached(Fields(source_features=features)).source_features.requires_grad  # a critic teaches no network
    False
    """
    return Fields({k: v.detach() if isinstance(v, Tensor) else v for k, v in fields.items()})


class OwnOptimizers:
    """Steps the method's parameters and the source's norm layers beside the network's optimizer.

    Over several ranks gradients are averaged first, so that the parameters stay equal.

    Args:
        method: its optimizer is made by ``make``, once its parts are sized.
        statistics: whose norm layers may have an optimizer as well.

    DANN's critic has an optimizer beside the network's:

    >>> import torch
    >>> from monai_transfer.methods import Dann
    >>> method = Dann(hidden=8)
    >>> method.setup(torch.nn.Linear(2, 2), Fields(source_features=torch.rand(4, 2), target_features=torch.rand(4, 2)))
    >>> own = OwnOptimizers(method, DomainStatistics("both", method))
    >>> own.make(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
    >>> len(own.all)
    1
    """

    def __init__(self, method: Method, statistics: DomainStatistics) -> None:
        self.method, self.statistics = method, statistics
        self.of_method: torch.optim.Optimizer | None = None

    @property
    def all(self) -> list[torch.optim.Optimizer]:
        """Those that there are."""
        return [o for o in (self.of_method, self.statistics.optimizer) if o is not None]

    def make(self, of_network: torch.optim.Optimizer | None) -> None:
        """Make the method's optimizer: its own, or where it follows the network's, one of the same kind.

        A rate is one of a kind of optimizer: SGD's is no rate for Adam.
        """
        self.of_method = self.method.make_optimizer()
        if self.of_method is not None and self.method.follows_lr and of_network is not None:
            self.of_method = optimizer_like(of_network, [p for g in self.of_method.param_groups for p in g["params"]])

    def zero(self) -> None:
        """Forget the gradients, as a new accumulation begins."""
        for optimizer in self.all:
            optimizer.zero_grad(set_to_none=True)

    def follow(self, of_network: torch.optim.Optimizer | None) -> None:
        """Take over the learning rate of the network's optimizer, where it is asked for."""
        if of_network is None:
            return
        if self.of_method is not None and self.method.follows_lr:
            fastest = max(group["lr"] for group in of_network.param_groups)
            for group in self.of_method.param_groups:
                group["lr"] = fastest
        if self.statistics.optimizer is not None:
            DomainNorms.follow(self.statistics.optimizer, of_network)

    def play_critic(self, fields: Fields) -> None:
        """The critic's own step, on detached fields."""
        if type(self.method).critic_step is Method.critic_step:
            return
        with torch.enable_grad():
            loss = self.method.critic_step(detached(fields))
        if loss is None:
            return
        assert self.of_method is not None, "a method with a critic has parameters for it"
        self.of_method.zero_grad(set_to_none=True)
        loss.backward()
        _average_gradients(self.of_method)
        self.of_method.step()
        self.of_method.zero_grad(set_to_none=True)

    def step(self, scaler: Any = None) -> None:
        """Step all; ``scaler``, a ``GradScaler`` that scaled the loss, divides and looks at their gradients first."""
        for optimizer in self.all:
            _average_gradients(optimizer)
            if all(p.grad is None for group in optimizer.param_groups for p in group["params"]):
                continue
            if scaler is not None and scaler.is_enabled():
                scaler.step(optimizer)  # the loop's own update() follows
            else:
                optimizer.step()


def _average_gradients(optimizer: torch.optim.Optimizer) -> None:
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None:  # every rank must take part in every reduction
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
