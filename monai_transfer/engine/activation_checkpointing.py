"""Trade time for memory: a block's inner activations are dropped after the forward pass and computed again in backward.

Paper: Chen, Xu, Zhang, Guestrin, Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174

Gradients are the same. PyTorch's ``checkpoint`` runs a block's forward a second time, which would count every batch
twice in BatchNorm's running statistics: in the second run ours leaves them alone. The network's modules, parameter
names and ``state_dict`` are as before, and copies of it (teachers, peers) compute with their own weights.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from monai_transfer.errors import InputError

__all__ = ["checkpoint_activations", "checkpointable_blocks"]

_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_MOST = 6  # convolutions or linear layers in a block: an inverted bottleneck with squeeze and excitation has five


def checkpointable_blocks(network: nn.Module) -> list[str]:
    """Names of the largest modules that hold one to six convolutions or linear layers, and something beside one.

    That finds the residual units, dense layers, bottlenecks and transformer blocks of MONAI's networks. One that begins
    by changing its input in place (the end of a DenseNet) is none: nothing is left to compute it from again.

    Args:
        network: any network.

    >>> from monai.networks.nets import UNet
    >>> network = UNet(2, 1, 2, channels=(4, 8), strides=(2,), num_res_units=2)
    >>> checkpointable_blocks(network)  # the residual units
    ['model.0', 'model.1', 'model.2']
    """
    found: list[str] = []
    for name, module in network.named_modules():
        if not name or any(name.startswith(f"{block}.") for block in found):
            continue
        leaves = [child for child in module.modules() if not any(True for _ in child.children())]
        weighted = sum(isinstance(child, _WEIGHTED) for child in leaves)
        runs = type(module).forward is not nn.Module.forward
        if 1 <= weighted <= _MOST and len(leaves) > weighted and runs and not _changes_its_input(module):
            found.append(name)
    return found


def _changes_its_input(module: nn.Module) -> bool:
    """Whether the first layer, as they are registered, works in place."""
    return getattr(next(m for m in module.modules() if not any(True for _ in m.children())), "inplace", False) is True


def checkpoint_activations(network: nn.Module, blocks: Sequence[str] | None = None) -> nn.Module:
    """Have blocks of a network keep only their inputs between forward and backward, in place.

    Args:
        network: before ``DistributedDataParallel`` is put around it.
        blocks: names of modules to run so; default ``checkpointable_blocks(network)``.

    Returns:
        The same network.

    Raises:
        InputError: a name is not a module of the network or begins by changing its input, or no block was found.

    Less memory, the same gradients:

    >>> import torch
    >>> from monai.networks.nets import UNet
    >>> _ = torch.manual_seed(0)
    >>> network, image = UNet(2, 1, 2, channels=(4, 8), strides=(2,), num_res_units=2), torch.rand(1, 1, 16, 16)
    >>> def gradients():
    ...     network.zero_grad()
    ...     network(image).square().mean().backward()
    ...     return [parameter.grad.clone() for parameter in network.parameters()]
    >>> before = gradients()
    >>> _ = checkpoint_activations(network)
    >>> all(torch.allclose(a, b) for a, b in zip(before, gradients()))
    True
    """
    modules = dict(network.named_modules())
    names = checkpointable_blocks(network) if blocks is None else list(blocks)
    missing = [name for name in names if name not in modules]
    if missing:
        raise InputError(f"{type(network).__name__} has no module {missing[0]!r}", hint="see named_modules()")
    changing = [name for name in names if _changes_its_input(modules[name])]
    if changing:
        fault = f"{changing[0]!r} begins by changing its input in place, so it cannot be computed again"
        raise InputError(fault, hint="build it with inplace=False, or leave it out")
    if not names:
        raise InputError(f"no block to checkpoint was found in {type(network).__name__}", hint="name some with blocks")
    for name in names:
        module = modules[name]
        if not isinstance(module, _Recomputed):
            # a subclass and not a new `forward` attribute: a deep copy would call the original's weights
            module.__class__ = _recomputed(type(module))  # type: ignore[arg-type]
    return network


class _Recomputed:
    """Mixed in before a module's class."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        run = super().forward  # type: ignore[misc]
        if not (self.training and torch.is_grad_enabled()):  # type: ignore[attr-defined]
            return run(*args, **kwargs)
        contexts = functools.partial(_contexts, self)
        return checkpoint(run, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@functools.cache
def _recomputed(cls: type) -> type:
    return type(cls.__name__, (_Recomputed, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__})


def _contexts(module: Any) -> tuple[Any, Any]:
    return nullcontext(), _statistics_untouched(module)


@contextmanager
def _statistics_untouched(module: nn.Module) -> Iterator[None]:
    """Norm layers in training mode update copies of their statistics, which are thrown away."""
    # not `track_running_stats = False`: autograd also saves the running statistics, and counts what it saved
    own = [
        (child._buffers, name, value)
        for child in module.modules()
        if isinstance(child, _NormBase) and child.training
        for name, value in child._buffers.items()
        if value is not None
    ]
    for buffers, name, value in own:
        buffers[name] = value.clone()
    try:
        yield
    finally:
        for buffers, name, value in own:
            buffers[name] = value
