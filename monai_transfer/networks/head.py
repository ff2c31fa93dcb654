"""The two ends of a network: the layers that give the class scores, and the layers that see the input channels.

Found from the modules alone: no forward pass, no input size. A network of MONAI that does not simply end in its last
layer (deep supervision, residual output blocks, an auxiliary decoder, an encoder without head) has a line in a table;
any other network is taken to begin with its first and to end with its last convolution or linear layer, in the order
of registration.
"""

from __future__ import annotations

import re

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

__all__ = ["call_head", "find_features", "find_head", "find_stem", "is_layer"]

HEADS: dict[str, str] = {
    # With residual units the output block of a UNet is an up-convolution and a unit, both as wide as the classes.
    "UNet": r"model\.2\.(conv|0\.conv|1\.conv\.unit0\.conv)",
    "VNet": r"out_tr\.(conv_block\.conv|conv2)",
    "DynUNet": r"(output_block|deep_supervision_heads\.\d+)\.conv\.conv",
    "SegResNetDS2": r"up_layers(_auto)?\.\d+\.head",
    "SegResNetDS": r"up_layers\.\d+\.head",
    "SegResNetVAE": r"conv_final\.2\.conv",
    "BasicUNetPlusPlus": r"final_conv_0_\d+",
    "Fcn": r"score|skip_scores\.\d+|ups\.\d+|last_up",
    "MedNeXt": r"(out_0|out_blocks\.\d+)\.conv_out",
    "ResidualEncoderUNet": r"decoder\.seg_layers\.\d+",  # dynamic_network_architectures, as nnU-Net uses them
    "PlainConvUNet": r"decoder\.seg_layers\.\d+",
}
"""Class name -> pattern of the names of its output layers, where the last layer alone would be wrong."""

MAIN: dict[str, str] = {
    "SegResNetDS2": r"up_layers\.\d+\.head",
    "SegResNetDS": r"up_layers\.\d+\.head",
    "BasicUNetPlusPlus": r"final_conv_0_\d+",
    "ResidualEncoderUNet": r"decoder\.seg_layers\.\d+",
    "PlainConvUNet": r"decoder\.seg_layers\.\d+",
}
"""Class name -> pattern of the output layers of which the last one is the main one; elsewhere it is the first."""

STEMS: dict[str, str] = {"DiNTS": r"stem_down\.\d+\.mod\.1"}
"""Class name -> pattern of the names of its input layers, where these are not registered first."""

ENCODERS = {"SwinTransformer", "SegResEncoder", "ResNetFeatures", "EfficientNetBNFeatures", "ResNetEncoder"}
"""Class names of encoders: they have no head."""


def is_layer(module: nn.Module) -> bool:
    """Whether ``module`` is a linear layer, a convolution or a transposed convolution.

    Args:
        module: any.

    >>> is_layer(nn.Conv3d(1, 2, 3)), is_layer(nn.BatchNorm3d(2))
    (True, False)
    """
    return isinstance(module, nn.Linear | _ConvNd)


def find_head(network: nn.Module) -> list[str]:
    """Names of the layers whose size depends on the number of classes, in the order of registration.

    Usually one. Deep supervision has several; a residual output block (``monai`` ``UNet`` with ``num_res_units > 0``,
    ``VNet``) has two in a row. Empty for an encoder, e.g. a ``ResNet`` with ``feed_forward=False``, a ``ViT`` without
    classification, or ``net.swinViT``. Names are relative to ``network`` and understood by ``get_submodule``.

    Args:
        network: the bare network.

    >>> from monai.networks.nets import DenseNet
    >>> from monai_transfer.networks.head import find_head
    >>> find_head(DenseNet(2, 1, 2, init_features=8, growth_rate=4, block_config=(2,)))
    ['class_layers.out']
    """
    layers = _layers(network)
    if not layers:
        return []
    last = list(layers)[-1]
    owner, pattern = _rule(network, last, HEADS)
    if pattern:
        return [name for name in layers if name.startswith(owner) and re.fullmatch(pattern, name.removeprefix(owner))]
    return [] if _is_encoder(network) else [last]


def find_features(network: nn.Module) -> str | None:
    """Name of the layer whose *input* is what one calls the features: the first layer of the main output.

    Not an auxiliary output of deep supervision, and not the second layer of a residual output block, whose input are
    class scores already. ``None`` where ``find_head`` finds nothing.

    Args:
        network: the bare network.

    The linear layer of a DenseNet, and the last convolution of a U-Net:

    >>> from monai.networks.nets import DenseNet, UNet
    >>> find_features(DenseNet(2, 1, 3, init_features=4, growth_rate=4, block_config=(2, 2)))
    'class_layers.out'
    >>> find_features(UNet(2, 1, 3, (4, 8), (2,)))
    'model.2.conv'
    """
    head = find_head(network)
    if not head:
        return None
    owner, pattern = _rule(network, head[0], MAIN)
    main = [name for name in head if pattern and re.fullmatch(pattern, name.removeprefix(owner))]
    return main[-1] if main else head[0]


def call_head(head: nn.Module, features: Tensor) -> Tensor:
    """A head's scores for pooled features, which are float32 or wider; its own weights may be narrower.

    Args:
        head: of the network.
        features: B x F.

    >>> import torch
    >>> call_head(nn.Linear(4, 2).to(torch.bfloat16), torch.ones(1, 4)).dtype
    torch.bfloat16
    """
    kind = next((p.dtype for p in head.parameters()), features.dtype)
    return head(features.to(kind))


def find_stem(network: nn.Module) -> list[str]:
    """Names of the layers that see the input channels directly, in the order of registration.

    A residual first block has two (its convolution and its shortcut); ``UNETR`` and ``SwinUNETR`` have three. Empty
    for a network without any convolution or linear layer.

    Args:
        network: the bare network.

    The first block of a residual U-Net has two:

    >>> from monai.networks.nets import UNet
    >>> find_stem(UNet(2, 1, 3, (4, 8), (2,), num_res_units=2))
    ['model.0.conv.unit0.conv', 'model.0.residual']
    """
    layers = _layers(network)
    if not layers:
        return []
    for prefix, module in network.named_modules():
        pattern = _pattern(module, STEMS)
        if pattern:
            owner = f"{prefix}." if prefix else ""
            return [n for n in layers if n.startswith(owner) and re.fullmatch(pattern, n.removeprefix(owner))]
    head = set(find_head(network))
    first = next(iter(layers))
    width = _width_in(layers[first])
    # A layer of the same input width sees the same input unless it comes after another one in a row, or stands inside
    # a block that another layer opens (the second convolution of squeeze and excitation, say).
    stem = [first]
    for name, layer in layers.items():
        if name in stem or name in head or name.split(".")[0].startswith("vae"):
            continue
        if not isinstance(layer, _ConvNd) or layer.in_channels != width:
            continue
        beside = all(not isinstance(_common(network, name, other), nn.Sequential) for other in stem)
        if beside and _opens_its_block(name, layers) in (name, *stem):
            stem.append(name)
    return stem


def _layers(network: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in network.named_modules() if is_layer(module)}


def _width_in(layer: nn.Module) -> int:
    width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    return int(width)  # type: ignore[arg-type]


def _rule(network: nn.Module, layer: str, table: dict[str, str]) -> tuple[str, str | None]:
    """The outermost module around ``layer`` whose class (or a base of it) is in ``table``: its prefix, its pattern."""
    parts = layer.split(".")
    for depth in range(len(parts)):
        prefix = ".".join(parts[:depth])
        pattern = _pattern(network.get_submodule(prefix), table)
        if pattern:
            return (f"{prefix}." if prefix else ""), pattern
    return "", None


def _pattern(module: nn.Module, table: dict[str, str]) -> str | None:
    return next((table[base.__name__] for base in type(module).__mro__ if base.__name__ in table), None)


def _is_encoder(network: nn.Module) -> bool:
    """An encoder by its class, or one whose head was left out on request."""
    names = {base.__name__ for base in type(network).__mro__}
    without_head = ("ViT" in names and not network.classification) or ("ResNet" in names and network.fc is None)
    return bool(names & ENCODERS) or without_head


def _opens_its_block(name: str, layers: dict[str, nn.Module]) -> str:
    """The first layer of the smallest module around ``name`` that holds more than one layer."""
    block = name
    while block:
        block = block.rpartition(".")[0]
        inside = [other for other in layers if not block or other.startswith(block + ".")]
        if len(inside) > 1:
            return inside[0]
    return name


def _common(network: nn.Module, a: str, b: str) -> nn.Module:
    """The smallest module that holds both."""
    shared = []
    for x, y in zip(a.split("."), b.split("."), strict=False):
        if x != y:
            break
        shared.append(x)
    return network.get_submodule(".".join(shared))
