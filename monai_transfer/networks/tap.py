"""Reading the activations of a named layer, without changing the network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.networks.head import find_features

__all__ = ["Tap", "first_tensor"]


def first_tensor(value: Any) -> Any:
    """The plain tensor behind a ``MetaTensor``, and the first entry of a tuple or list (deep supervision).

    Args:
        value: what a module gave or was given.

    >>> first_tensor([torch.zeros(1, 2), torch.zeros(1, 3)]).shape
    torch.Size([1, 2])
    """
    if isinstance(value, (tuple, list)):
        value = value[0]
    return value.as_tensor() if hasattr(value, "as_tensor") else value


class Tap:
    """Keeps the latest activation of one layer until it is taken.

    Args:
        network: the bare network.
        layer: a module name of it, whose *output* is tapped; ``None`` taps what *enters* the class head, which is the
            usual choice of "features".

    Raises:
        InputError: no module has that name; the message lists names that are close.

    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> tap = Tap(network)  # what enters the class head
    >>> _ = network(torch.rand(5, 4))
    >>> tap.take().shape
    torch.Size([5, 8])
    """

    def __init__(self, network: nn.Module, layer: str | None = None) -> None:
        modules = dict(network.named_modules())
        if layer is None:
            found = find_features(network)
            if found is None:
                raise InputError(f"{type(network).__name__} has no class head to find", hint="name a layer")
            self.layer = found
            self._hook = modules[self.layer].register_forward_pre_hook(self._on_input)
        else:
            if layer not in modules:
                import difflib

                near = difflib.get_close_matches(layer, modules, n=5, cutoff=0.3) or list(modules)[1:6]
                raise InputError(
                    f"layer {layer!r} is not a module of {type(network).__name__}", hint=f"such as {', '.join(near)}"
                )
            self.layer = layer
            self._hook = modules[layer].register_forward_hook(self._on_output)
        self._value: Tensor | None = None

    def _on_input(self, _module: nn.Module, inputs: tuple) -> None:
        self._value = first_tensor(inputs[0])

    def _on_output(self, _module: nn.Module, _inputs: tuple, output: Any) -> None:
        self._value = first_tensor(output)

    def take(self) -> Tensor:
        """The activation of the last forward pass; it is forgotten here, so that no graph is kept alive."""
        value, self._value = self._value, None
        if not isinstance(value, torch.Tensor):
            raise InputError(
                f"layer {self.layer!r} was not used in the forward pass, or gives no tensor",
                hint="name a module that the network calls in each pass",
            )
        return value

    def remove(self) -> None:
        """Take the hook off the network."""
        self._hook.remove()
