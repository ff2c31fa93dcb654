"""Weights of a rebuilt network as nnU-Net's own: its names, its axis order, its kernels.

nnU-Net's plain U-Net has one kernel per stage for encoder and decoder; ``DynUNet`` takes a decoder stage's kernel from
the level below, so that a flat kernel of the first stage may have become a full one. Where training filled it, the
plans get the larger kernel, and the smaller ones stand in it with zeros around: the same function.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from monai_transfer.nnunet.model import NnunetModel
from monai_transfer.nnunet.original import Original, canonical
from monai_transfer.weights.classes import ClassMap
from monai_transfer.weights.key_functions import nnunet_stages

__all__ = ["nnunet_weights", "with_kernels"]

_STAGE = re.compile(r"(?:.*\.)?(encoder|decoder)\.stages\.(\d+)\..*conv\.weight")
_HEADS = re.compile(r"(?:.*\.)?decoder\.seg_layers\.\d+\.(weight|bias)")


def nnunet_weights(
    original: Original,
    model: NnunetModel,
    state: Mapping[str, Tensor],
    source: Mapping[str, Tensor],
    outputs: Sequence[str],
    rows: Sequence[int] | None = None,
) -> tuple[dict[str, Tensor], list[list[int]]]:
    """The weights under nnU-Net's names, and the kernels per stage that they have, in nnU-Net's axis order.

    Args:
        original: what was kept of the source. model: what it describes.
        state: of the bundle's network.
        source: the source as it came, under nnU-Net's names, in MONAI's axis order: for what the bundle's network does
            not have (biases that a norm takes out, heads of deep supervision, whose rows go over by class names).
        outputs: names of the network's outputs, in order.
        rows: of the heads, the order in which nnU-Net is to have them; ``None``: as they are.
    """
    named = nnunet_stages(list(source), list(state)) if model.architecture.in_monai else {}
    found: dict[str, Tensor] = {}
    for name, tensor in source.items():
        if (there := named.get(name, name)) in state:
            value = state[there]
        else:
            value = _mapped(tensor, model.labels, outputs) if _HEADS.fullmatch(name) else tensor
        value = value[list(rows)] if rows is not None and _HEADS.fullmatch(name) else value
        back = [2 + model.axes.index(axis) for axis in range(model.dims)]
        found[name] = value.permute(0, 1, *back).contiguous() if value.ndim == model.dims + 2 else value
    kernels = _kernels(found, model)
    for name in found:
        if (stage := _stage_of(name, len(kernels))) is not None and "convs" in name:
            found[name] = _widened(found[name], kernels[stage])
    return {name: found[canonical(name)] for name in original.tensors}, kernels


def _mapped(tensor: Tensor, theirs: Sequence[str], ours: Sequence[str]) -> Tensor:
    made = torch.zeros(len(ours), *tensor.shape[1:])
    for target, source in ClassMap.by_name(theirs, ours).pairs:
        made[target] = tensor[source]
    return made


def _stage_of(name: str, count: int) -> int | None:
    match = _STAGE.fullmatch(name)
    if match is None:
        return None
    return int(match[2]) if match[1] == "encoder" else count - 2 - int(match[2])


def _kernels(weights: Mapping[str, Tensor], model: NnunetModel) -> list[list[int]]:
    """Per stage the plans' kernel, or a larger one where a tensor of that stage fills it."""
    kernels = [list(kernel) for kernel in model.architecture.kernels]
    for name, tensor in weights.items():
        stage = _stage_of(name, len(kernels))
        if stage is None or "convs" not in name:
            continue
        for axis, size in enumerate(tensor.shape[2:]):
            if size > kernels[stage][axis] and bool(_margin(tensor, axis, kernels[stage][axis]).any()):
                kernels[stage][axis] = size
    return kernels


def _margin(tensor: Tensor, axis: int, size: int) -> Tensor:
    """The part of a kernel outside its middle ``size`` along an axis, as a mask times the values."""
    outside = torch.ones(tensor.shape[2 + axis], dtype=torch.bool)
    first = (len(outside) - size) // 2
    outside[first : first + size] = False
    return tensor.movedim(2 + axis, -1)[..., outside]


def _widened(tensor: Tensor, kernel: Sequence[int]) -> Tensor:
    """In the middle of a larger kernel, or the middle of it alone."""
    for axis, size in enumerate(kernel, 2):
        n = tensor.shape[axis]
        if n < size:
            shape = list(tensor.shape)
            shape[axis] = (size - n) // 2
            zeros = tensor.new_zeros(shape)
            tensor = torch.cat([zeros, tensor, zeros], axis)
        elif n > size:
            tensor = tensor.narrow(axis, (n - size) // 2, size)
    return tensor.contiguous()


def with_kernels(plans: Mapping[str, Any], configuration: str, kernels: list[list[int]]) -> dict[str, Any]:
    """The plans with other kernels in a configuration; in the form of nnU-Net 2.0 to 2.3 or later."""
    made: dict[str, Any] = copy.deepcopy(dict(plans))
    at: str = configuration
    while "architecture" not in made["configurations"][at] and "conv_kernel_sizes" not in made["configurations"][at]:
        at = made["configurations"][at]["inherits_from"]
    found = copy.deepcopy(made["configurations"][at])
    config = made["configurations"][configuration]
    if "architecture" in found:
        found["architecture"]["arch_kwargs"]["kernel_sizes"] = kernels
        config["architecture"] = found["architecture"]
    else:
        config["conv_kernel_sizes"] = kernels
    return made
