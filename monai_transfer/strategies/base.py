"""The protocol of a strategy: which parameters learn, how fast, and when.

Usable from a config line (``strategy: {_target_: monai_transfer.strategies.head_only.HeadOnly}``) and from Python:
``network = strategy.apply(network)`` (freeze, inject, hook; before DDP wraps), then
``torch.optim.AdamW(strategy.param_groups(network), lr=...)``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Events
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from monai_transfer.errors import InputError
from monai_transfer.networks.freezing import freeze, hold, keep_in_eval, learnable, thaw
from monai_transfer.networks.head import find_head
from monai_transfer.networks.schedules import run_progress
from monai_transfer.networks.wrappers import unwrap

__all__ = [
    "NORM_LAYERS",
    "ParamGroup",
    "Scheduled",
    "Strategy",
    "follow",
    "freeze",
    "head_modules",
    "keep_in_eval",
    "learning_groups",
]

NORM_LAYERS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
"""The classes of normalisation layers: batch and instance norm of all dimensions, group, layer and RMS norm."""


class Strategy:
    """Base class: everything learns. Constructed without required arguments.

    A strategy that changes something over time also has ``attach(engine)``, so that it can stand among the trainer's
    handlers; the config passes the same object there.

    >>> network = nn.Linear(2, 1)
    >>> strategy = Strategy()
    >>> optimizer = torch.optim.SGD(strategy.param_groups(strategy.apply(network)), lr=0.1)
    >>> sum(p.numel() for group in optimizer.param_groups for p in group["params"])  # everything learns
    3
    """

    def apply(self, network: nn.Module) -> nn.Module:
        """Freeze, inject or hook, in place where possible; returns the network to train.

        What an earlier strategy froze in this network is released first: the last one applied decides.
        """
        thaw(network)
        _bound(network)
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

    A tenth of the optimizer's rate for the first layer:

    >>> import torch
    >>> first, head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    >>> groups = [ParamGroup(first.parameters(), scale=0.1), ParamGroup(head.parameters())]
    >>> [round(group["lr"], 6) for group in torch.optim.AdamW(groups, lr=1e-3).param_groups]
    [0.0001, 0.001]
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

    Args:
        strategy: named in the error.
        network: named in the error.
        groups: dictionaries with ``params``, as optimizers take; changed in place.

    Raises:
        InputError: nothing is left to learn.

    A frozen layer's group falls away:

    >>> import torch
    >>> from monai_transfer.strategies import Full
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 2).requires_grad_(False), torch.nn.Linear(2, 1))
    >>> groups = [{"params": list(layer.parameters())} for layer in network]
    >>> [sum(p.numel() for p in group["params"]) for group in learning_groups(Full(), network, groups)]
    [3]
    """
    for group in groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    return _some(strategy, network, [group for group in groups if group["params"]])


def _some(strategy: Strategy, network: nn.Module, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not groups:
        raise InputError(
            f"strategy {type(strategy).__name__} leaves no parameter of {type(network).__name__} to learn",
            hint="choose another strategy, or a network that has what it trains (e.g. affine norm layers)",
        )
    return groups


class Scheduled(Strategy):
    """Base of the strategies that change over time: each group of parameters has a rate that depends on the progress.

    A subclass says which groups there are and what their rates are at a given share of the run. Rate 0 is frozen:
    bitwise unchanged whatever the optimizer's momentum and weight decay, norm statistics included.

    ``attach(engine)`` makes it follow the run of a MONAI trainer; in a loop of one's own, ``bind(network, optimizer)``
    once and ``advance(progress)`` before each step. All groups are in the optimizer from the start, so momentum is
    kept, and rates multiply the learning rate during ``optimizer.step()`` only: schedulers of any kind see their own
    rates and resume as usual. The rates are a function of the progress, so resuming needs no further state. Under DDP
    frozen groups keep their gradients, which the reducer counts on, and the step drops them.

    A strategy of one's own: the head learns from the start, all else from half of the run on.

    >>> class HeadFirst(Scheduled):
    ...     def groups(self, network):
    ...         return [["1.weight", "1.bias"], ["0.weight", "0.bias"]]
    ...     def rates(self, progress, count):
    ...         return [1.0, 1.0 if progress >= 0.5 else 0.0]
    >>> network, strategy = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), HeadFirst()
    >>> optimizer = torch.optim.SGD(strategy.param_groups(strategy.apply(network)), lr=0.1)
    >>> strategy.bind(network, optimizer)
    >>> [network[0].weight.requires_grad for progress in (0.0, 0.6) if strategy.advance(progress) is None]
    [False, True]
    """

    _network: nn.Module | None = None
    _optimizer: torch.optim.Optimizer | None = None

    def groups(self, network: nn.Module) -> list[list[str]]:
        """Parameter names of the bare ``network``, in groups; those left out do not learn at all."""
        raise NotImplementedError

    def rates(self, progress: float, count: int) -> list[float]:
        """The factor of the learning rate for each of the ``count`` groups, at ``progress`` in [0, 1]."""
        raise NotImplementedError

    def scales(self, count: int) -> list[float]:
        """Each group's constant share of the optimizer's learning rate."""
        return [1.0] * count

    def apply(self, network: nn.Module) -> nn.Module:
        """Put the network into the state of the run's beginning."""
        super().apply(network)
        groups = self.groups(network)
        self._hold(network, groups, self.rates(0.0, len(groups)), gradients=_distributed())
        network.__dict__["transfer_unbound"] = type(self).__name__
        network.register_forward_pre_hook(_warn_unbound)
        return network

    def param_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """One group for each group of parameters, those that are frozen at first included."""
        core = unwrap(network)
        learning, named = learnable(core), dict(core.named_parameters())
        groups = self.groups(core)
        result: list[dict[str, Any]] = [
            ParamGroup([named[name] for name in group if name in learning], scale)
            for group, scale in zip(groups, self.scales(len(groups)), strict=True)
        ]
        return _some(self, network, [group for group in result if group["params"]])

    def attach(self, engine: Any) -> None:
        """Follow ``engine``, a MONAI trainer: its network and optimizer from its start, its progress per iteration."""
        engine.add_event_handler(Events.STARTED, lambda: self.bind(engine.network, engine.optimizer))
        engine.add_event_handler(Events.ITERATION_STARTED, self._follow)

    def _follow(self, engine: Any) -> None:
        state = engine.state
        self.advance(run_progress(state.iteration, state.epoch_length, state.max_epochs, state.epoch))

    def bind(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Take hold of the network that is trained and of its optimizer.

        Raises:
            InputError: an optimizer group mixes parameters that this strategy treats differently.
        """
        for handle in self.__dict__.pop("_handles", []):
            handle.remove()
        core = unwrap(network)
        _bound(core)
        named = dict(core.named_parameters())
        names = self.groups(core)
        place = {id(named[name]): index for index, group in enumerate(names) for name in group}
        places = [{place.get(id(p)) for p in group["params"]} for group in optimizer.param_groups]
        if any(len(found) > 1 for found in places):
            raise InputError(
                f"the optimizer's groups are not those of {type(self).__name__}",
                hint="make the optimizer from strategy.param_groups(network)",
            )
        self._network, self._names, self._places = core, names, [next(iter(found), None) for found in places]
        self._gradients = isinstance(network, nn.parallel.DistributedDataParallel)
        self._rates: list[float] = []
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step), optimizer.register_step_post_hook(self._after_step),
        ]  # fmt: skip

    def advance(self, progress: float) -> None:
        """Set the rates for ``progress``, the share of the run that is done, and freeze and release accordingly."""
        if self._network is None:
            raise RuntimeError("bind() comes before advance()")
        before, self._rates = self._rates, self.rates(progress, len(self._names))
        if [rate == 0 for rate in before] != [rate == 0 for rate in self._rates]:
            self._hold(self._network, self._names, self._rates, gradients=self._gradients)

    @staticmethod
    def _hold(network: nn.Module, groups: list[list[str]], rates: list[float], *, gradients: bool) -> None:
        live = {name for group, rate in zip(groups, rates, strict=True) if rate != 0 for name in group}
        hold(network, {name for name, _ in network.named_parameters()} - live, gradients=gradients)

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._saved = [group["lr"] for group in optimizer.param_groups]
        for group, place in zip(optimizer.param_groups, self._places, strict=True):
            if place is None or not self._rates:
                continue
            if self._rates[place] == 0:
                for parameter in group["params"]:
                    parameter.grad = None  # a zero gradient would still move by momentum and weight decay
            group["lr"] = group["lr"] * self._rates[place]

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group, lr in zip(optimizer.param_groups, self._saved, strict=True):
            group["lr"] = lr


def follow(strategy: Strategy) -> Strategy:
    """The strategy itself, for a config's list of handlers, whose items have to be dictionaries.

    ``- {_target_: monai_transfer.strategies.base.follow, strategy: '@strategy'}`` is the same object as ``@strategy``;
    MONAI's ``check_properties`` cannot read a bare reference there.

    Args:
        strategy: a strategy that is also a handler, such as gradual unfreezing.

    >>> from monai_transfer.strategies import Full
    >>> strategy = Full()
    >>> follow(strategy=strategy) is strategy  # no copy: the handler unfreezes what the optimizer holds
    True
    """
    return strategy


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _warn_unbound(network: nn.Module, _inputs: Any) -> None:
    if network.training:
        name = network.__dict__.get("transfer_unbound")
        _bound(network)
        warnings.warn(
            f"strategy {name} stays at its first phase: put it among the trainer's handlers, or bind() it", stacklevel=2
        )


def _bound(network: nn.Module) -> None:
    network.__dict__.pop("transfer_unbound", None)
    for key in [key for key, hook in network._forward_pre_hooks.items() if hook is _warn_unbound]:
        del network._forward_pre_hooks[key]


def head_modules(network: nn.Module, head: str | list[str] | None = None) -> list[str]:
    """The module names of the head: those that the user named, else what ``networks.head.find_head`` finds.

    Args:
        network: any network.
        head: the name of a module, several, or None to have it found.

    Raises:
        InputError: a named module is not in the network, is the whole of it or holds no parameter; or nothing is found.

    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
    >>> head_modules(network), head_modules(network, head="0")  # the last layer is found; another one is named
    (['2'], ['0'])
    """
    if head is None:
        found = find_head(network)
        if not found:
            raise InputError(f"{type(network).__name__} has no head that could be told", hint="name it with head=")
        return found
    names = [head] if isinstance(head, str) else list(head)
    modules = dict(network.named_modules(remove_duplicate=False))  # DynUNet reaches modules under several names
    for name in names:
        if not name or name not in modules:
            known = ", ".join([n for n, m in modules.items() if n and not any(m.children())][-5:])
            raise InputError(
                f"{type(network).__name__} has no module {name!r} to be the head", hint=f"its last modules are {known}"
            )
        if not any(True for _ in modules[name].parameters()):
            raise InputError(f"the module {name!r} of {type(network).__name__} has no parameters", hint="name another")
    if not names:
        raise InputError("the list of head modules is empty", hint="name at least one, or leave `head` out")
    return names
