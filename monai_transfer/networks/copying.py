"""Copies of a network: frozen ones as teachers, learning ones as peers that start elsewhere."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.networks.head import find_head

__all__ = ["copy_network", "meta_copy", "peer_network"]


def copy_network(network: nn.Module, *, frozen: bool = True) -> nn.Module:
    """A deep copy on the same device; ``frozen``: in eval mode and without gradients.

    Hooks that are methods of some other object (an observer of the original) stay behind: a copied observer would
    drag its owner along, and a shared one would see the copy's activations. Hooks that are plain functions
    (those of frozen norm layers) belong to the network and are copied. Activations that a network keeps from its last
    pass (``DynUNet`` does) are copied without their graph.

    Args:
        network: the bare network.
        frozen: for a teacher; else the copy learns.

    A frozen copy, as a teacher needs it, does not follow the original:

    >>> import torch
    >>> network = torch.nn.Linear(1, 1)
    >>> teacher = copy_network(network)
    >>> _ = torch.nn.init.constant_(network.weight, 5.0)
    >>> teacher.weight.requires_grad, bool(teacher.weight == 5)
    (False, False)
    """
    memo: dict[int, Any] = {id(t): t.detach().clone() for t in _kept_tensors(network) if t.grad_fn is not None}
    twin = _structural_copy(network, memo)
    if frozen:
        twin.eval()
        for parameter in twin.parameters():
            parameter.requires_grad_(False)
    else:
        for parameter in twin.parameters():
            parameter.grad = None
    return twin


def meta_copy(network: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy on the ``meta`` device: the same modules and shapes, no storage, nothing of the original touched.

    Args:
        network: the bare network.
        dtype: of the floating-point tensors of the copy; default: as they are.

    >>> twin = meta_copy(nn.Linear(1000, 1000), torch.bfloat16)
    >>> twin.weight.device.type, twin.weight.dtype, tuple(twin.weight.shape)
    ('meta', torch.bfloat16, (1000, 1000))
    """
    memo: dict[int, Any] = {}
    tensors = [*network.parameters(), *network.buffers(), *_kept_tensors(network)]
    for tensor in tensors:
        kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        empty = torch.empty_like(tensor.detach(), device="meta", dtype=kind)
        empty = empty.as_tensor() if hasattr(empty, "as_tensor") else empty
        learns = tensor.requires_grad and tensor.grad_fn is None
        memo[id(tensor)] = nn.Parameter(empty, learns) if isinstance(tensor, nn.Parameter) else empty
    return _structural_copy(network, memo)


def _kept_tensors(network: nn.Module) -> Iterator[Tensor]:
    """Tensors that modules hold as plain attributes, alone or in a list, tuple or dictionary."""
    for module in network.modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            value = list(value.values()) if isinstance(value, dict) else value
            inside = value if isinstance(value, list | tuple) else [value]
            yield from (item for item in inside if isinstance(item, Tensor))


def _structural_copy(network: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """``deepcopy`` with the twins of some tensors given, without the hooks of other objects."""
    kept = []
    for module in network.modules():
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            hooks = getattr(module, name)
            foreign = {k: v for k, v in hooks.items() if inspect.ismethod(v) and not isinstance(v.__self__, nn.Module)}
            if foreign:
                kept.append((hooks, dict(hooks)))
                for key in foreign:
                    del hooks[key]
    try:
        return copy.deepcopy(network, memo)
    finally:
        for hooks, original in kept:  # the dictionaries are the modules' own: refill them in the old order
            hooks.clear()
            hooks.update(original)


def peer_network(network: nn.Module, start: str = "head") -> nn.Module:
    """A learning copy that differs from ``network`` where it is drawn anew, so that the two can disagree.

    Args:
        network: the bare network.
        start: what is drawn anew from torch's generator: ``"head"``, the layers of the class scores, or ``"all"``.

    Raises:
        InputError: ``start`` is neither of the two.

    >>> network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> peer = peer_network(network)
    >>> torch.equal(peer[0].weight, network[0].weight), torch.equal(peer[1].weight, network[1].weight)
    (True, False)
    """
    if start not in ("head", "all"):
        raise InputError(
            f"start must be 'head' or 'all', not {start!r}", hint="head draws the class scores anew, all the whole copy"
        )
    peer = copy_network(network, frozen=False)
    for module in peer.modules() if start == "all" else map(peer.get_submodule, find_head(peer)):
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return peer
