"""The protocol of a strategy: which parameters learn, how fast, and when.

Usable from a config line (``strategy: {_target_: monai_transfer.strategies.head_only.HeadOnly}``) and from Python:
``network = strategy.apply(network)`` (freeze, inject, hook; before DDP wraps), then
``torch.optim.AdamW(strategy.param_groups(network), lr=...)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.networks.freezing import freeze, keep_in_eval, thaw

__all__ = ["ParamGroup", "Strategy", "freeze", "head_modules", "keep_in_eval", "learning_groups"]


class Strategy:
    """Base class: everything learns. Constructed without required arguments.

    A strategy that changes something over time also has ``attach(engine)``, so that it can stand among the trainer's
    handlers; the config passes the same object there.
    """

    def apply(self, network: nn.Module) -> nn.Module:
        """Freeze, inject or hook, in place where possible; returns the network to train.

        What an earlier strategy froze in this network is released first: the last one applied decides.
        """
        thaw(network)
        return network

    def param_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """What any torch optimizer takes: groups with ``params`` and, where they differ, ``lr`` or ``weight_decay``.

        Accepts the network that ``apply`` returned, or the same wrapped in ``DistributedDataParallel``.

        Raises:
            InputError: nothing is left to learn.
        """
        return learning_groups(self, network, [{"params": network.parameters()}])

    def attach(self, engine: Any) -> None:
        """Nothing to do over time."""


class ParamGroup(dict):
    """An optimizer group whose learning rate is ``scale`` times the one that the optimizer is made with.

    A strategy does not know that rate, and torch fills a group's missing entries by ``setdefault`` from its defaults,
    so this is where the share is taken: ``AdamW([ParamGroup(params, scale=0.1)], lr=1e-3)`` learns at 1e-4. From then
    on it is an ordinary group: schedulers that scale or decay keep the proportion. One that sets absolute rates takes
    a list: ``OneCycleLR(optimizer, max_lr=[g["lr"] for g in optimizer.param_groups], ...)``.

    Args:
        params: the parameters of the group.
        scale: its share of the optimizer's learning rate.
        **options: further entries, such as ``weight_decay``.
    """

    def __init__(self, params: Iterable[nn.Parameter], scale: float = 1.0, **options: Any) -> None:
        super().__init__(params=list(params), **options)
        self.scale = scale

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key == "lr" and key not in self:
            default = self.scale * default
        return super().setdefault(key, default)


def learning_groups(strategy: Strategy, network: nn.Module, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``groups`` reduced to the parameters that learn, without the empty ones.

    Raises:
        InputError: nothing is left to learn.
    """
    for group in groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise InputError(
            f"strategy {type(strategy).__name__} leaves no parameter of {type(network).__name__} to learn",
            mend="choose another strategy, or a network that has what it trains (e.g. affine norm layers)",
        )
    return groups


def head_modules(network: nn.Module, head: str | list[str] | None = None) -> list[str]:
    """The module names of the head: those that the user named, else what ``networks.head.find_head`` finds.

    Raises:
        InputError: a named module is not in the network, is the whole of it or holds no parameter; or nothing is found.
    """
    if head is None:
        from monai_transfer.networks.head import find_head

        return find_head(network)
    names = [head] if isinstance(head, str) else list(head)
    modules = dict(network.named_modules())
    for name in names:
        if not name or name not in modules:
            known = ", ".join([n for n, m in modules.items() if n and not any(m.children())][-5:])
            raise InputError(
                f"{type(network).__name__} has no module {name!r} to be the head", mend=f"its last modules are {known}"
            )
        if not any(True for _ in modules[name].parameters()):
            raise InputError(f"the module {name!r} of {type(network).__name__} has no parameters", mend="name another")
    if not names:
        raise InputError("the list of head modules is empty", mend="name at least one, or leave `head` out")
    return names
