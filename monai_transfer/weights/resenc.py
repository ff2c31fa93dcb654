"""nnU-Net's and nnssl's residual-encoder U-Net (ResEnc M, L, XL), which MONAI does not have, from its own package.

Isensee et al., "nnU-Net Revisited", arXiv:2404.09556 (ResEnc); Wald et al., "Revisiting MAE pre-training for 3D
medical image segmentation", arXiv:2410.23132 (nnssl, ResEnc-L). The network is that of the package
``dynamic_network_architectures`` (Apache 2.0), which is no dependency: it asks for an old timm, and so for a
torchvision, though these networks need neither, hence ``pip install --no-deps dynamic-network-architectures``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.weights.dialects import find_state_dicts
from monai_transfer.weights.nnunet import numbered
from monai_transfer.weights.source import Source

__all__ = ["residual_unet", "residual_unet_arguments"]

INSTALL = "pip install --no-deps dynamic-network-architectures"


def residual_unet(
    source: str | PathLike[str] | Mapping[str, Any] | Source,
    *,
    out_channels: int | None = None,
    in_channels: int | None = None,
    strides: Sequence[Sequence[int]] | None = None,
    deep_supervision: bool = False,
) -> nn.Module:
    """A ``ResidualEncoderUNet`` with the shape of a checkpoint, freshly initialised as nnU-Net does.

    ``network = residual_unet(path, out_channels=3); load_weights(network, path)``. Images are in nnU-Net's axis order
    (z, y, x). The weights are not loaded here, so that the report of what was loaded is yours.

    Args:
        source, strides: see ``residual_unet_arguments``.
        out_channels, in_channels: instead of the checkpoint's. deep_supervision: a list of outputs, full size first.

    Raises:
        InputError: the package is not installed, or these are no weights of such a network.
    """
    arguments = residual_unet_arguments(source, strides=strides)
    arguments["num_classes"] = out_channels or arguments["num_classes"]
    arguments["input_channels"] = in_channels or arguments["input_channels"]
    try:
        from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
    except ImportError as error:
        fault = f"the residual-encoder U-Net needs the package dynamic_network_architectures ({error})"
        raise InputError(fault, hint=f"install it: {INSTALL}") from error
    dims = len(arguments["kernel_sizes"][0])
    network: nn.Module = ResidualEncoderUNet(
        **arguments,
        conv_op=nn.Conv2d if dims == 2 else nn.Conv3d,
        norm_op=nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
    )
    network.apply(network.initialize)  # type: ignore[arg-type]
    return network


def residual_unet_arguments(
    source: str | PathLike[str] | Mapping[str, Any] | Source, *, strides: Sequence[Sequence[int]] | None = None
) -> dict[str, Any]:
    """The sizes of a residual-encoder U-Net, by the names that ``ResidualEncoderUNet`` gives them.

    Args:
        source: a checkpoint of nnU-Net v2 or nnssl, its content, or a ``Source``.
        strides: of every stage, the first one all 1, where the checkpoint has no decoder, whose up-convolutions show
            them; nnssl's ResEnc-L has 2 everywhere but in the first stage.

    Raises:
        InputError: these are no such weights, or the strides are needed and not given.
    """
    content = (
        source
        if isinstance(source, Mapping)
        else (source if isinstance(source, Source) else Source.load(source)).state_dict
    )
    weights = next(iter(find_state_dicts(content).values()))
    stages = numbered(weights, r"(?:.*\.)?encoder\.stages\.(\d+)\.blocks\.0\.conv1\.conv\.weight")
    stem = next(iter(numbered(weights, r"(?:.*\.)?encoder\.stem\.convs\.(0)\.conv\.weight")), None)
    deep = any(re.fullmatch(r"(.*\.)?encoder\.stages\.0\.blocks\.0\.conv3\.conv\.weight", name) for name in weights)
    if not stages or stem is None or deep:
        raise InputError(
            "these are no weights of a residual-encoder U-Net with basic blocks",
            hint="pass a ResEnc checkpoint of nnU-Net v2 or nnssl",
        )
    ups = numbered(weights, r"(?:.*\.)?decoder\.transpconvs\.(\d+)\.weight")
    heads = numbered(weights, r"(?:.*\.)?decoder\.seg_layers\.(\d+)\.weight")
    dims = stem.ndim - 2
    if strides is None and len(ups) != len(stages) - 1:
        raise InputError(
            "the checkpoint has no decoder, so its strides cannot be read",
            hint=f"pass strides, e.g. {[[1] * dims]} + {[[2] * dims]} * {len(stages) - 1}",
        )
    steps = [[1] * dims, *(list(up.shape[2:]) for up in ups[::-1])] if strides is None else [list(s) for s in strides]
    if len(steps) != len(stages) or any(len(step) != dims for step in steps):
        raise InputError(
            f"strides are {len(steps)}, the encoder has {len(stages)} stages of {dims} axes",
            hint="give one for each stage and axis",
        )
    return {
        "input_channels": stem.shape[1],
        "n_stages": len(stages),
        "features_per_stage": [stage.shape[0] for stage in stages],
        "kernel_sizes": [list(stage.shape[2:]) for stage in stages],
        "strides": steps,
        "n_blocks_per_stage": [_count(weights, "encoder", s, "blocks", r"conv1\.conv") for s in range(len(stages))],
        "n_conv_per_stage_decoder": [
            _count(weights, "decoder", s, "convs", "conv") or 1 for s in range(len(stages) - 1)
        ],
        "num_classes": heads[0].shape[0] if heads else 1,
        "conv_bias": any(re.fullmatch(r"(.*\.)?encoder\.stem\.convs\.0\.conv\.bias", name) for name in weights),
        "stem_channels": stem.shape[0],
    }


def _count(weights: Mapping[str, Tensor], side: str, stage: int, kind: str, tail: str) -> int:
    return len(numbered(weights, rf"(?:.*\.)?{side}\.stages\.{stage}\.{kind}\.(\d+)\.{tail}\.weight"))
