"""The protocol of a strategy: which parameters learn, how fast, and when.

Usable from a config line (``strategy: {_target_: monai_transfer.strategies.head_only.HeadOnly}``) and from Python:
``network = strategy.apply(network)`` (freeze, inject, hook; before DDP wraps), then
``torch.optim.AdamW(strategy.param_groups(network), lr=...)``.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from monai_transfer.errors import InputError

__all__ = ["Strategy", "freeze", "keep_in_eval"]


class Strategy:
    """Base class: everything learns. Constructed without required arguments.

    A strategy that changes something over time also has ``attach(engine)``, so that it can stand among the trainer's
    handlers; the config passes the same object there.
    """

    def apply(self, network: nn.Module) -> nn.Module:
        """Freeze, inject or hook, in place where possible; returns the network to train."""
        return network

    def param_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """What any torch optimizer takes: groups with ``params`` and, where they differ, ``lr`` or ``weight_decay``.

        Accepts the network that ``apply`` returned, or the same wrapped in ``DistributedDataParallel``.

        Raises:
            InputError: nothing is left to learn.
        """
        params = [p for p in network.parameters() if p.requires_grad]
        if not params:
            raise InputError(
                f"strategy {type(self).__name__} leaves no parameter of {type(network).__name__} to learn",
                mend="choose another strategy, or a network that has what it trains (e.g. affine norm layers)",
            )
        return [{"params": params}]

    def attach(self, engine: Any) -> None:
        """Nothing to do over time."""


def keep_in_eval(module: nn.Module) -> None:
    """Keep ``module`` in eval mode whatever ``network.train()`` says.

    MONAI's trainer calls ``network.train()`` inside each iteration, so a plain ``eval()`` is undone and the running
    statistics of frozen norm layers drift. A forward pre-hook puts the mode back right before use.
    """
    module.eval()
    module.register_forward_pre_hook(_to_eval)


def _to_eval(module: nn.Module, _inputs: Any) -> None:
    if module.training:
        module.eval()


def freeze(module: nn.Module) -> None:
    """Freeze ``module`` entirely: no gradients, and norm statistics and dropout in eval mode during training too.

    The hook stands on every submodule, since a parent may call its children without passing through this module.
    """
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for child in module.modules():
        keep_in_eval(child)
