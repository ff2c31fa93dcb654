"""Freezing that holds: no gradients, and norm statistics and dropout in eval mode whatever ``network.train()`` says.

MONAI's trainer calls ``network.train()`` inside each iteration, so a plain ``eval()`` is undone and the running
statistics of frozen norm layers drift. A forward pre-hook puts the mode back right before use. The hook is a plain
function that reads a flag on the module: deep copies and pickles of the network keep it, and ``thaw`` switches it off.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

__all__ = [
    "freeze",
    "freeze_all_but",
    "freeze_parameters",
    "hold",
    "keep_in_eval",
    "learnable",
    "release",
    "thaw",
]

_EVAL, _PARAMETERS = "transfer_kept_in_eval", "transfer_frozen_parameters"


def _to_eval(module: nn.Module, _inputs: Any) -> None:
    if getattr(module, _EVAL, False):
        module.training = False


def keep_in_eval(module: nn.Module) -> None:
    """Keep ``module`` itself (not its children) in eval mode until ``release``.

    Args:
        module: of which ``train()`` changes nothing any more.

    >>> import torch
    >>> norm = torch.nn.BatchNorm1d(2)
    >>> keep_in_eval(norm)
    >>> _ = norm.train()(torch.ones(4, 2))
    >>> norm.num_batches_tracked.item()  # the batch did not count
    0
    """
    module.training = False
    if not hasattr(module, _EVAL):  # one hook per module, for good
        module.register_forward_pre_hook(_to_eval)
    setattr(module, _EVAL, True)


def release(module: nn.Module, training: bool = False) -> None:
    """Undo ``keep_in_eval``; ``training`` is the mode that the module goes on in until the next ``train()``.

    Args:
        module: given to ``keep_in_eval`` before.
        training: its mode until the next ``train()``.

    >>> import torch
    >>> dropout = torch.nn.Dropout()
    >>> keep_in_eval(dropout)
    >>> release(dropout, training=True)
    >>> dropout.training
    True
    """
    if getattr(module, _EVAL, False):
        setattr(module, _EVAL, False)
        module.training = training


def freeze_parameters(module: nn.Module, names: Collection[str] | None = None) -> None:
    """No gradients for the parameters that ``module`` itself owns; those that learned are remembered for ``thaw``.

    Args:
        module: their owner.
        names: only these (the last part of the name decides).

    >>> import torch
    >>> norm = torch.nn.BatchNorm1d(2)
    >>> freeze_parameters(norm, ["bias"])
    >>> norm.weight.requires_grad, norm.bias.requires_grad
    (True, False)
    """
    wanted = None if names is None else {name.rpartition(".")[2] for name in names}
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.requires_grad and (wanted is None or name in wanted):
            setattr(module, _PARAMETERS, getattr(module, _PARAMETERS, set()) | {name})
            parameter.requires_grad_(False)


def freeze(module: nn.Module) -> None:
    """Freeze ``module`` and all its submodules: no gradients, and norm statistics and dropout in eval mode.

    The hook stands on every submodule, since a parent may call its children without passing through this module.

    Args:
        module: a network, or a part of one.

    The frozen layers get no gradient, and a pass in training mode leaves the running statistics as they are:

    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)).train()
    >>> freeze(network[:2])
    >>> [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    ['2.weight', '2.bias']
    >>> _ = network(torch.ones(4, 2))
    >>> network[1].num_batches_tracked.item()
    0
    """
    for child in module.modules():
        freeze_parameters(child)
        keep_in_eval(child)


def freeze_all_but(network: nn.Module, parts: Collection[nn.Module]) -> None:
    """Freeze everything outside ``parts``; modules that hold one of them keep their mode, for deep supervision.

    By identity of modules, since some networks (MONAI's DynUNet) reach the same module under several names.

    Args:
        network: the whole.
        parts: modules of it that go on learning.

    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Dropout(), torch.nn.Linear(3, 1)).train()
    >>> freeze_all_but(network, [network[2]])
    >>> [name for name, p in network.named_parameters() if p.requires_grad], network[1].training
    (['2.weight', '2.bias'], False)
    """
    inside = {module for part in parts for module in part.modules()}
    for module in network.modules():
        if module not in inside:
            freeze_parameters(module)
            if inside.isdisjoint(module.modules()):
                keep_in_eval(module)


def hold(network: nn.Module, names: Collection[str], *, gradients: bool = False) -> None:
    """Freeze exactly the parameters ``names`` and the modules that are theirs, undoing what was frozen before.

    A module goes to eval mode when all the parameters that it owns are frozen; one that owns none (dropout, a norm
    layer without weights) follows the module defined before it, whose output it usually takes.

    Args:
        network: the bare network.
        names: full parameter names.
        gradients: leave the gradients on, for DDP, whose reducer counts on them; the optimizer must then skip them.

    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)).train()
    >>> hold(network, ["1.weight", "1.bias"])
    >>> [layer.training for layer in network]  # the norm layer counts no batches
    [True, False, True]
    >>> hold(network, [])  # anew: nothing is held
    >>> [layer.training for layer in network]
    [True, True, True]
    """
    thaw(network)
    frozen = set(names)
    inherited: bool | None = None
    waiting: list[nn.Module] = []  # parameterless modules at the very start take the first answer
    for prefix, module in network.named_modules():
        own = [f"{prefix}.{name}" if prefix else name for name, _ in module.named_parameters(recurse=False)]
        if own:
            inherited = frozen.issuperset(own)
            if not gradients:
                freeze_parameters(module, frozen.intersection(own))
            if inherited:
                for item in [*waiting, module]:
                    keep_in_eval(item)
            waiting = []
        elif not any(module.children()):
            if inherited is None:
                waiting.append(module)
            elif inherited:
                keep_in_eval(module)


def learnable(network: nn.Module) -> set[str]:
    """Names of the parameters that learn, or would after ``thaw``.

    Args:
        network: the bare network.

    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    >>> _ = network[0].requires_grad_(False)
    >>> sorted(learnable(network))
    ['1.bias', '1.weight']
    """
    names = set()
    for prefix, module in network.named_modules():
        frozen: set[str] = getattr(module, _PARAMETERS, set())
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad or name in frozen:
                names.add(f"{prefix}.{name}" if prefix else name)
    return names


def thaw(network: nn.Module, training: bool | None = None) -> None:
    """Undo every ``freeze``, ``freeze_parameters`` and ``keep_in_eval`` inside ``network``, hooks included.

    ``training`` is the mode that released modules go on in until the next ``train()``; default, that of ``network``.

    What the network itself does not learn (fixed position embeddings) or its user froze by hand stays as it was.

    Args:
        network: a network, or a part of one.
        training: mode of what is released; default, that of ``network``.

    >>> import torch
    >>> network = torch.nn.Linear(2, 3)
    >>> freeze(network)
    >>> network.weight.requires_grad
    False
    >>> thaw(network)
    >>> network.weight.requires_grad
    True
    """
    training = network.training if training is None else training
    for module in network.modules():
        names: set[str] = getattr(module, _PARAMETERS, set())
        for name, parameter in module.named_parameters(recurse=False):
            if name in names:
                parameter.requires_grad_(True)
        if names:
            delattr(module, _PARAMETERS)
        release(module, training)
        if hasattr(module, _EVAL):
            delattr(module, _EVAL)
            for key in [k for k, hook in module._forward_pre_hooks.items() if hook is _to_eval]:
                del module._forward_pre_hooks[key]
