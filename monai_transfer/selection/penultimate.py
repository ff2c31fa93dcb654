"""The input of a network's output layer, and its class probabilities, for one window of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.networks.head import find_head
from monai_transfer.networks.outputs import probabilities
from monai_transfer.selection.source_images import one_line

__all__ = ["Penultimate"]


class Penultimate:
    """Runs a network and keeps what enters its output layer.

    Args:
        network: in eval mode.
        name: for messages.
        layer: the module whose input is kept; by default the output layer (``find_head``). A network without one, an
            encoder, gives its output (of several its last, deepest).

    Raises:
        InputError: the network has no module of that name.

    >>> from torch import nn
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    >>> features, probabilities = Penultimate(network, "small")(torch.rand(1, 1, 4, 4))
    >>> features.shape, round(float(probabilities.sum()), 3)
    (torch.Size([8]), 1.0)
    """

    def __init__(self, network: nn.Module, name: str, layer: str | None = None) -> None:
        self.network, self.name = network, name
        if layer is not None and layer not in dict(network.named_modules()):
            raise InputError(f"{name} has no module {layer!r}", hint="see named_modules()")
        heads = [layer] if layer else find_head(network)
        # the tail of a residual output block is as wide as the classes: its input is no feature
        wide = [h for h in heads if layer or not _is_square(network.get_submodule(h))]
        self.layers = wide or heads

    def __call__(self, image: Tensor, size: Sequence[int] | None = None) -> tuple[Tensor, Tensor | None]:
        """Features (D [x spatial]) and class probabilities (Z [x spatial], or ``None``) of a C x spatial image.

        The maps may be coarser than the image. Where the image is smaller than ``size`` it is padded with zeros for the
        network, and the maps are cut back.

        Raises:
            InputError: the network cannot take the image, or gives no tensor.
        """
        batch = image.float()[None]
        spatial = batch.shape[2:]
        wanted = [max(a, b) for a, b in zip(size or spatial, spatial, strict=True)]
        pad = [n for a, b in zip(reversed(wanted), reversed(spatial), strict=True) for n in (0, a - b)]
        device = next((p.device for p in self.network.parameters()), torch.device("cpu"))
        seen: dict[str, Tensor] = {}
        hooks = [self.network.get_submodule(n).register_forward_pre_hook(_keep(seen, n)) for n in self.layers]
        try:
            output = self.network(F.pad(batch, pad).to(device))
        except Exception as error:  # shapes, channels, dimensions: whatever the network raises
            fault = f"{self.name} cannot take this image of {tuple(batch.shape[1:])} ({one_line(error)})"
            raise InputError(fault, hint="choose a source for this number of channels and dimensions") from error
        finally:
            for hook in hooks:
                hook.remove()
        while isinstance(output, (list, tuple)):
            output = output[0] if seen else output[-1]
        if not isinstance(output, Tensor):
            raise InputError(
                f"{self.name} gives a {type(output).__name__}, and a tensor is wanted",
                hint="name a layer that gives one with layer=",
            )
        scores = None
        if seen:
            # of several output layers (deep supervision) the finest
            features = max(seen.values(), key=lambda x: int(np.prod(x.shape[2:])))[0].float()
            if output.shape[1] > 1 or output.ndim > 2:
                scores = _cut(probabilities(output)[0].float(), spatial, wanted).cpu()
        else:
            features = output[0].float()
        if features.ndim == 2 and len(spatial) > 1:  # tokens x D, as the linear layers of transformers see them
            features = features.T
        return _cut(features, spatial, wanted).cpu(), scores


def _keep(seen: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any], None]:
    def hook(_module: nn.Module, inputs: Any) -> None:
        seen[name] = inputs[0].detach()

    return hook


def _cut(values: Tensor, size: Sequence[int], padded: Sequence[int]) -> Tensor:
    """Maps of a padded image cut back to the image, at whatever resolution they have."""
    if values.ndim != 1 + len(size) or list(size) == list(padded):
        return values
    kept = [max(1, round(have * n / whole)) for have, n, whole in zip(values.shape[1:], size, padded, strict=True)]
    return values[(slice(None), *(slice(0, n) for n in kept))]


def _is_square(layer: nn.Module) -> bool:
    for kind in ("features", "channels"):
        if hasattr(layer, f"in_{kind}"):
            return bool(getattr(layer, f"in_{kind}") == getattr(layer, f"out_{kind}"))
    return False
