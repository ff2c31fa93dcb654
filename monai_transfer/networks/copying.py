"""Copies of a network: frozen ones as teachers, learning ones as peers that start elsewhere."""

from __future__ import annotations

import copy
import inspect

from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.networks.head import find_head

__all__ = ["copy_network", "peer_network"]


def copy_network(network: nn.Module, *, frozen: bool = True) -> nn.Module:
    """A deep copy on the same device; ``frozen``: in eval mode and without gradients.

    Hooks that are methods of some other object (an observer of the original) stay behind: a copied observer would
    drag its owner along, and a shared one would see the copy's activations. Hooks that are plain functions
    (those of frozen norm layers) belong to the network and are copied.
    """
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
        twin = copy.deepcopy(network)
    finally:
        for hooks, original in kept:  # the dictionaries are the modules' own: refill them in the old order
            hooks.clear()
            hooks.update(original)
    if frozen:
        twin.eval()
        for parameter in twin.parameters():
            parameter.requires_grad_(False)
    else:
        for parameter in twin.parameters():
            parameter.grad = None
    return twin


def peer_network(network: nn.Module, start: str = "head") -> nn.Module:
    """A learning copy that differs from ``network`` where it is drawn anew, so that the two can disagree.

    Args:
        network: the bare network.
        start: what is drawn anew from torch's generator: ``"head"``, the layers of the class scores, or ``"all"``.

    Raises:
        InputError: ``start`` is neither of the two.
    """
    if start not in ("head", "all"):
        raise InputError(f"start must be 'head' or 'all', not {start!r}")
    peer = copy_network(network, frozen=False)
    for module in peer.modules() if start == "all" else map(peer.get_submodule, find_head(peer)):
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return peer
