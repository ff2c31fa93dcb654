"""Freezing that holds: no gradients, and norm statistics and dropout in eval mode whatever ``network.train()`` says.

MONAI's trainer calls ``network.train()`` inside each iteration, so a plain ``eval()`` is undone and the running
statistics of frozen norm layers drift. A forward pre-hook puts the mode back right before use. The hook is a plain
function that reads a flag on the module: deep copies and pickles of the network keep it, and ``thaw`` switches it off.
"""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["bare", "freeze", "freeze_parameters", "keep_in_eval", "release", "thaw"]

_EVAL, _PARAMETERS = "transfer_kept_in_eval", "transfer_frozen_parameters"


def bare(network: nn.Module) -> nn.Module:
    """The network itself, without ``DistributedDataParallel``, ``DataParallel`` or ``torch.compile`` around it."""
    while True:
        if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):
            network = inner
        else:
            return network


def _to_eval(module: nn.Module, _inputs: Any) -> None:
    if getattr(module, _EVAL, False):
        module.training = False


def keep_in_eval(module: nn.Module) -> None:
    """Keep ``module`` itself (not its children) in eval mode until ``release``."""
    module.training = False
    if not hasattr(module, _EVAL):  # one hook per module, for good
        module.register_forward_pre_hook(_to_eval)
    setattr(module, _EVAL, True)


def release(module: nn.Module, training: bool = False) -> None:
    """Undo ``keep_in_eval``; ``training`` is the mode that the module goes on in until the next ``train()``."""
    if getattr(module, _EVAL, False):
        setattr(module, _EVAL, False)
        module.training = training


def freeze_parameters(module: nn.Module) -> None:
    """No gradients for the parameters that ``module`` itself owns; those that learned are remembered for ``thaw``."""
    learning = {name for name, p in module.named_parameters(recurse=False) if p.requires_grad}
    if learning:
        setattr(module, _PARAMETERS, getattr(module, _PARAMETERS, set()) | learning)
    for parameter in module.parameters(recurse=False):
        parameter.requires_grad_(False)


def freeze(module: nn.Module) -> None:
    """Freeze ``module`` and all its submodules: no gradients, and norm statistics and dropout in eval mode.

    The hook stands on every submodule, since a parent may call its children without passing through this module.
    """
    for child in module.modules():
        freeze_parameters(child)
        keep_in_eval(child)


def thaw(network: nn.Module) -> None:
    """Undo every ``freeze``, ``freeze_parameters`` and ``keep_in_eval`` inside ``network``, hooks included.

    What the network itself does not learn (fixed position embeddings) or its user froze by hand stays as it was.
    """
    for module in network.modules():
        names: set[str] = getattr(module, _PARAMETERS, set())
        for name, parameter in module.named_parameters(recurse=False):
            if name in names:
                parameter.requires_grad_(True)
        if names:
            delattr(module, _PARAMETERS)
        release(module, network.training)
        if hasattr(module, _EVAL):
            delattr(module, _EVAL)
            for key in [k for k, hook in module._forward_pre_hooks.items() if hook is _to_eval]:
                del module._forward_pre_hooks[key]
