"""The arguments with which MONAI's DynUNet has the shape of an nnU-Net v2 checkpoint.

Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
Nature Methods 2021.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from typing import Any

from torch import Tensor

from monai_transfer.errors import InputError
from monai_transfer.weights.dialects import find_state_dicts
from monai_transfer.weights.key_rules import WITHOUT_MATCH
from monai_transfer.weights.source import Source

__all__ = ["dynunet_arguments", "numbered"]


def dynunet_arguments(
    source: str | PathLike[str] | Mapping[str, Any] | Source, *, deep_supervision: bool = False
) -> dict[str, Any]:
    """Keyword arguments for ``monai.networks.nets.DynUNet`` that fit a plain nnU-Net v2 checkpoint.

    ``network = DynUNet(**dynunet_arguments(path)); load_weights(network, path)`` gives nnU-Net's output on images in
    its axis order (z, y, x), where the images are large enough for its strides. Everything is read from the shapes of
    the weights; the strides are the kernels of the up-convolutions, as nnU-Net builds them. Flat kernels (1 x 3 x 3)
    of the decoder become full ones with zeros, since DynUNet takes the decoder's kernels from one level below.

    Args:
        source: a checkpoint file (``checkpoint_final.pth``), its content, or a ``Source``.
        deep_supervision: also have the outputs at lower resolution, as in training.

    Raises:
        InputError: these are no weights of nnU-Net's plain U-Net with two convolutions in each stage.
    """
    content = (
        source
        if isinstance(source, Mapping)
        else (source if isinstance(source, Source) else Source.load(source)).state_dict
    )
    weights = next(iter(find_state_dicts(content).values()))
    stages = numbered(weights, r"(?:.*\.)?encoder\.stages\.(\d+)\.0\.convs\.0\.conv\.weight")
    ups = numbered(weights, r"(?:.*\.)?decoder\.transpconvs\.(\d+)\.weight")
    heads = numbered(weights, r"(?:.*\.)?decoder\.seg_layers\.(\d+)\.weight")
    if not stages or len(ups) != len(stages) - 1 or not heads:
        hint = next((text for sign, text in WITHOUT_MATCH.items() if any(re.fullmatch(sign, n) for n in weights)), None)
        raise InputError("these are no weights of nnU-Net's plain U-Net", hint=hint or "pass an nnU-Net v2 checkpoint")
    per_stage = {
        len(numbered(weights, rf"(?:.*\.)?{side}\.{number}\.(?:0\.)?convs\.(\d+)\.conv\.weight"))
        for side, count in ((r"encoder\.stages", len(stages)), (r"decoder\.stages", len(ups)))
        for number in range(count)
    }
    if per_stage != {2}:
        raise InputError(
            f"this nnU-Net has {' or '.join(map(str, sorted(per_stage)))} convolutions in a stage, DynUNet has 2",
            hint="build it with the package dynamic_network_architectures and load into that",
        )
    kernels = [list(weight.shape[2:]) for weight in ups]
    arguments: dict[str, Any] = {
        "spatial_dims": stages[0].ndim - 2,
        "in_channels": stages[0].shape[1],
        "out_channels": heads[0].shape[0],
        "kernel_size": [list(weight.shape[2:]) for weight in stages],
        "strides": [[1] * (stages[0].ndim - 2), *kernels[::-1]],
        "upsample_kernel_size": kernels[::-1],
        "filters": [weight.shape[0] for weight in stages],
        "trans_bias": True,
    }
    if deep_supervision and len(heads) > 1:
        arguments |= {"deep_supervision": True, "deep_supr_num": len(heads) - 1}
    return arguments


def numbered(weights: Mapping[str, Tensor], pattern: str) -> list[Tensor]:
    """The tensors whose name matches, by the number in it; a second name of the same one is left out.

    Args:
        weights: a state dict.
        pattern: of the names; its first group is the number.

    >>> import torch
    >>> weights = {"up.1.w": torch.ones(1), "up.0.w": torch.zeros(1), "head.w": torch.ones(2)}
    >>> found = numbered(weights, "up[.]([0-9]+)[.]w")
    >>> [float(tensor) for tensor in found]
    [0.0, 1.0]
    """
    found = {int(m[1]): tensor for name, tensor in weights.items() for m in [re.fullmatch(pattern, name)] if m}
    return [found[number] for number in sorted(found)]
