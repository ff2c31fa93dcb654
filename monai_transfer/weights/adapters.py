"""LoRA adapters in a checkpoint: found beside the weights that they change, and merged into them on request.

Two ways of writing them are known: ours (``layer.lora_A``, ``layer.lora_B``, ``layer.lora_scale``; see
``strategies.lora``) and that of the package peft (``base_model.model.layer.base_layer.weight``,
``layer.lora_A.default.weight``), whose file does not hold the scale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from monai_transfer.errors import InputError
from monai_transfer.networks.low_rank import low_rank_change

__all__ = ["LORA_MODES", "Adapter", "find_adapters"]

LORA_MODES = ("refuse", "merge", "drop")

_NAME = re.compile(r"(?P<layer>.*)\.lora_(?P<part>A|B|scale)(?:\.(?P<name>\w+)(?:\.weight)?)?")


@dataclass(frozen=True)
class Adapter:
    """One adapter, as the source has it.

    Attributes:
        names: of its tensors in the source.
        first, second: A and B. scale: their product's factor, ``None`` where the file does not say it.

    >>> import torch
    >>> adapter = Adapter(("a", "b"), first=torch.ones(1, 3), second=torch.ones(2, 1), scale=0.5)
    >>> adapter.merged(torch.zeros(2, 3), nn.Linear(3, 2)).tolist()
    [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
    """

    names: tuple[str, ...]
    first: Tensor
    second: Tensor
    scale: float | None

    def merged(self, weight: Tensor, module: nn.Module, scale: float | None = None) -> Tensor:
        """W + s B A.

        Args:
            weight: W, of the source. module: the layer that it goes into.
            scale: s, where the file does not say it.

        Raises:
            InputError: the scale is unknown, or the adapter does not fit the layer.
        """
        factor = self.scale if scale is None else scale
        if factor is None:
            raise InputError(
                f"the file does not say the scale of its LoRA adapters ({self.names[0]})",
                hint="pass lora_scale: alpha / rank, of peft's adapter_config.json",
            )
        if not isinstance(module, nn.Linear | _ConvNd):
            raise InputError(
                f"{self.names[0]} belongs to a {type(module).__name__}, which takes no adapter",
                hint="load them into the network that they were trained with",
            )
        first, second = self.first.double(), self.second.double().flatten(1)
        change = low_rank_change(module, first, second)
        if change.numel() != weight.numel():
            raise InputError(
                f"the LoRA adapter {self.names[0]} does not fit its layer: A {tuple(self.first.shape)}, "
                f"B {tuple(self.second.shape)}, the weight {tuple(weight.shape)}",
                hint="merge it where it was trained",
            )
        return (weight.double() + factor * change.view(weight.shape)).to(weight.dtype)


def find_adapters(tensors: Mapping[str, Tensor]) -> dict[str, Adapter]:
    """The adapters of a state dict by the name of the weight that they change, as the source calls it.

    Args:
        tensors: a state dict.

    >>> import torch
    >>> found = find_adapters({"fc.weight": torch.zeros(3, 2), "fc.lora_A": torch.zeros(1, 2),
    ...                        "fc.lora_B": torch.zeros(3, 1), "fc.lora_scale": torch.tensor(2.0)})
    >>> found["fc.weight"].scale
    2.0
    """
    parts: dict[str, dict[str, str]] = {}
    for name in tensors:
        match = _NAME.fullmatch(name)
        if match:
            parts.setdefault(match["layer"], {})[match["part"]] = name
    found = {}
    for layer, names in parts.items():
        weight = next(
            (f"{layer}{end}" for end in (".weight", ".base_layer.weight") if f"{layer}{end}" in tensors), None
        )
        if weight is None or not {"A", "B"} <= names.keys():
            continue
        scale = float(tensors[names["scale"]]) if "scale" in names else None
        first, second = (tensors[names[part]] for part in "AB")
        found[weight] = Adapter(tuple(names.values()), first.to(torch.float64), second.to(torch.float64), scale)
    return found
