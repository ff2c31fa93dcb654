"""Renamings that have to count: blocks of EfficientNet and HoVer-Net, stages of nnU-Net; and one change of layout."""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import Tensor

__all__ = ["efficientnet_blocks", "hovernet_blocks", "nnunet_stages", "squeeze_linear", "without_wrappers"]

_WRAPPERS = re.compile(r"(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|base_layer)\.")
"""What torch.compile, FSDP, activation checkpointing and peft put into names, wherever they wrap a module."""


def without_wrappers(name: str) -> str:
    """A tensor's name without the modules that only wrap another one.

    Args:
        name: of a tensor.

    >>> without_wrappers("encoder._orig_mod.conv.weight")
    'encoder.conv.weight'
    """
    while (shorter := _WRAPPERS.sub(r"\1", name)) != name:
        name = shorter
    return name


def squeeze_linear(name: str, tensor: Tensor) -> Tensor:
    """A 1x1 convolution that MONAI has as a linear layer (squeeze and excitation): O x I x 1 x 1 -> O x I.

    Args:
        name: of the tensor in MONAI's network.
        tensor: of the source.

    >>> import torch
    >>> squeeze_linear("layers.0.se.fc.0.weight", torch.zeros(4, 8, 1, 1)).shape
    torch.Size([4, 8])
    """
    return tensor.flatten(1) if name.endswith(("fc.0.weight", "fc.2.weight")) else tensor


_TIMM_TAILS = {
    "conv_dw": "_depthwise_conv",
    "se.conv_reduce": "_se_reduce",
    "se.conv_expand": "_se_expand",
}
_TIMM_FULL = {"conv_pw": "_expand_conv", "bn1": "_bn0", "bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}
_TIMM_FIRST = {"bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}  # blocks that expand nothing
_TIMM_ENDS = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}


def efficientnet_blocks(names: Collection[str], target: Collection[str]) -> dict[str, str]:
    """Blocks are numbered through; MONAI puts the number of the stage in front. timm numbers them by stage."""
    stages = {m[2]: m[1] for name in target for m in [re.search(r"_blocks\.(\d+)\.(\d+)\.", name)] if m}
    timm = sorted(
        {(int(m[1]), int(m[2])) for name in names for m in [re.search(r"(?<!_)blocks\.(\d+)\.(\d+)\.", name)] if m}
    )
    expanding = {m[1] for name in names for m in [re.search(r"(?<!_)blocks\.(\d+\.\d+)\.conv_pwl\.", name)] if m}
    renamed = {}
    for name in names:
        flat = re.fullmatch(r"(.*?)_blocks\.(\d+)\.(_.+)", name)
        staged = re.fullmatch(r"(.*?)(?<!_)blocks\.(\d+)\.(\d+)\.(.+)\.(\w+)", name)
        end = re.fullmatch(r"((?:.*\.)?)(\w+)\.(\w+)", name)
        if flat and flat[2] in stages:
            renamed[name] = f"{flat[1]}_blocks.{stages[flat[2]]}.{flat[2]}.{flat[3]}"
        elif staged:
            table = _TIMM_TAILS | (_TIMM_FULL if f"{staged[2]}.{staged[3]}" in expanding else _TIMM_FIRST)
            block = timm.index((int(staged[2]), int(staged[3])))
            if staged[4] in table:
                renamed[name] = f"{staged[1]}_blocks.{staged[2]}.{block}.{table[staged[4]]}.{staged[5]}"
        elif timm and end and end[2] in _TIMM_ENDS:
            renamed[name] = f"{end[1]}{_TIMM_ENDS[end[2]]}.{end[3]}"
    return renamed


def hovernet_blocks(names: Collection[str], target: Collection[str]) -> dict[str, str]:
    """A standard ResNet-50 into ``HoVerNet``'s encoder, whose blocks have their norm in front, as MONAI maps it.

    The third norm of a block becomes the first of the next; the shortcut's norm becomes the stage's last. It is a
    start for training, not the same function.
    """
    renamed = {}
    for name in names:
        block = re.fullmatch(r"(.*?)layer(\d)\.(\d+)\.(\w+)\.(.+)", name)
        stem = re.fullmatch(r"((?:.*\.)?)(conv|bn)1\.(\w+)", name)
        if block:
            stage, number, kind, rest = f"{block[1]}res_blocks.d{int(block[2]) - 1}", int(block[3]), block[4], block[5]
            layer = f"{stage}.layers.denselayer_{number}.layers"
            if kind == "bn3":
                renamed[name] = f"{stage}.layers.denselayer_{number + 1}.layers.preact/bn.{rest}"
            elif kind == "downsample":
                where, _, rest = rest.partition(".")
                renamed[name] = f"{stage}.{'shortcut' if where == '0' else 'bna_block.bn'}.{rest}"
            else:
                renamed[name] = f"{layer}.{kind.replace('bn', 'conv') + '/bn' if 'bn' in kind else kind}.{rest}"
        elif stem:
            renamed[name] = f"{stem[1]}conv0.{stem[2]}.{stem[3]}"
    return renamed


def nnunet_stages(names: Collection[str], target: Collection[str]) -> dict[str, str]:
    """Stages of nnU-Net's plain U-Net to the blocks of ``DynUNet``: first, in between, last.

    Both have two convolutions per stage and join the upsampled features before the skipped ones. nnU-Net's
    convolutions have a bias that DynUNet's lack: the instance norm behind them takes it out, so nothing is lost. Its
    up-convolutions have one too: build DynUNet with ``trans_bias=True``. Axes are those of nnU-Net (z, y, x).
    """
    stages = [int(m[1]) for name in names for m in [re.search(r"encoder\.stages\.(\d+)\.0\.convs", name)] if m]
    last = max(stages, default=0)
    renamed = {}
    for name in names:
        if "decoder.encoder." in name or "all_modules" in name:  # the same tensors under a second name
            continue
        parts = re.fullmatch(r"(.*?)(encoder|decoder)\.(\w+)\.(\d+)\.(?:0\.)?(.+)", name)
        if not parts:
            continue
        prefix, side, kind, number, rest = parts[1], parts[2], parts[3], int(parts[4]), parts[5]
        inner = re.sub(r"convs\.(\d+)\.(conv|norm)\.(\w+)$", _dyn_layer, rest)
        if side == "encoder" and kind == "stages":
            block = "input_block" if number == 0 else "bottleneck" if number == last else f"downsamples.{number - 1}"
            renamed[name] = f"{prefix}{block}.{inner}"
        elif kind == "stages":
            renamed[name] = f"{prefix}upsamples.{number}.conv_block.{inner}"
        elif kind == "transpconvs":
            renamed[name] = f"{prefix}upsamples.{number}.transp_conv.conv.{rest}"
        elif kind == "seg_layers":
            scale = last - 1 - number  # 0 is full resolution
            block = "output_block" if scale == 0 else f"deep_supervision_heads.{scale - 1}"
            renamed[name] = f"{prefix}{block}.conv.conv.{rest}"
    return renamed


def _dyn_layer(match: re.Match[str]) -> str:
    layer = f"{match[2]}{int(match[1]) + 1}"
    return f"{layer}.conv.{match[3]}" if match[2] == "conv" else f"{layer}.{match[3]}"
