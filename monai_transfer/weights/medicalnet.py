"""The arguments with which MONAI's ResNet has the shape of published weights, and MedicalNet's own strides.

Chen, Ma, Zheng, "Med3D: Transfer Learning for 3D Medical Image Analysis", arXiv:1904.00625 (weights: MIT licence).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from typing import Any

from monai.networks.nets import ResNet
from torch import nn
from torch.nn.modules.conv import _ConvNd

from monai_transfer.errors import InputError
from monai_transfer.weights.dialects import find_state_dicts
from monai_transfer.weights.source import Source

__all__ = ["published_strides", "resnet_arguments", "resnet_flags"]

_SHORTCUTS = {10: "B", 18: "A", 34: "A", 50: "B", 101: "B", 152: "B", 200: "B"}


def resnet_flags(depth: int, *, feed_forward: bool = False) -> dict[str, Any]:
    """Keyword arguments for ``monai.networks.nets.resnet<depth>`` that fit the MedicalNet weights of that depth.

    ``resnet18(**resnet_flags(18))``. With MONAI's defaults (shortcut B with a bias) the weights of 18 and 34 layers
    leave every downsampling convolution fresh. MedicalNet's first convolution has ``conv1_t_stride=2``, which the
    weights do not show; MONAI's default is 1. Its dilation in the last two stages has no argument in MONAI: see
    ``published_strides``. With the file at hand ``resnet_arguments`` finds all of it.

    Args:
        depth: 10, 18, 34, 50, 101, 152 or 200.
        feed_forward: ``True`` for a classification head, which starts fresh (the weights have none).

    Raises:
        InputError: no weights of this depth were published.

    >>> resnet_flags(18)
    {'spatial_dims': 3, 'n_input_channels': 1, 'shortcut_type': 'A', 'bias_downsample': True, 'feed_forward': False}
    """
    if depth not in _SHORTCUTS:
        raise InputError(f"MedicalNet has no ResNet of depth {depth}", hint=f"choose one of {list(_SHORTCUTS)}")
    shortcut = _SHORTCUTS[depth]
    return {
        "spatial_dims": 3,
        "n_input_channels": 1,
        "shortcut_type": shortcut,
        "bias_downsample": shortcut == "A",  # no weights depend on it then; MONAI's own check asks for it
        "feed_forward": feed_forward,
    }


def resnet_arguments(
    source: str | PathLike[str] | Mapping[str, Any] | Source, *, num_classes: int | None = None
) -> dict[str, Any]:
    """Keyword arguments for ``monai.networks.nets.ResNet`` that fit a checkpoint, read from its names and shapes.

    ``network = ResNet(**resnet_arguments(path, num_classes=2)); load_weights(network, path)``. For MedicalNet's files
    (raw with ``module.``, with or without the segmentation part, or as MONAI has them), torchvision's 2D ResNets and
    MONAI's own. The first convolution gets stride 2, as in both publications, which weights do not show; MONAI's own
    default is 1, so give ``conv1_t_stride=1`` afterwards for a network that was trained so.

    Args:
        source: a checkpoint file, its content, or a ``Source``.
        num_classes: outputs of a classification head; ``None``: no head (``feed_forward=False``).

    Raises:
        InputError: these are no weights of a ResNet with four stages.

    >>> from monai.networks.nets import ResNet
    >>> def network(**changes):
    ...     sizes = {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 8, 8, 8]}
    ...     return ResNet(**sizes, spatial_dims=3, n_input_channels=1, feed_forward=False, **changes)
    >>> arguments = resnet_arguments(network().state_dict())  # names and shapes tell the sizes
    >>> arguments["layers"], arguments["block_inplanes"], arguments["spatial_dims"]
    ([1, 1, 1, 1], [4, 8, 8, 8], 3)
    """
    content = (
        source
        if isinstance(source, Mapping)
        else (source if isinstance(source, Source) else Source.load(source)).state_dict
    )
    weights = next(iter(find_state_dicts(content).values()))
    prefix = next((m[1] for name in weights for m in [re.fullmatch(r"(.*?)layer1\.0\.conv1\.weight", name)] if m), None)
    stages = [_blocks(weights, f"{prefix}layer{number}.") for number in range(1, 5)]
    stem = weights.get(f"{prefix}conv1.weight")
    if prefix is None or stem is None or not all(stages):
        raise InputError(
            "these are no weights of a ResNet: layer1 to layer4 with conv1 were looked for",
            hint="pass MedicalNet's, torchvision's or MONAI's ResNet weights",
        )
    shortcut = weights.get(f"{prefix}layer2.0.downsample.0.weight")
    arguments: dict[str, Any] = {
        "block": "bottleneck" if f"{prefix}layer1.0.conv3.weight" in weights else "basic",
        "layers": stages,
        "block_inplanes": [weights[f"{prefix}layer{number}.0.conv1.weight"].shape[0] for number in range(1, 5)],
        "spatial_dims": stem.ndim - 2,
        "n_input_channels": stem.shape[1],
        "conv1_t_size": list(stem.shape[2:]),
        "conv1_t_stride": 2,
        "shortcut_type": "A" if shortcut is None else "B",
        "bias_downsample": f"{prefix}layer2.0.downsample.0.bias" in weights,
        "feed_forward": num_classes is not None,
    }
    return arguments | ({} if num_classes is None else {"num_classes": num_classes})


def _blocks(weights: Mapping[str, Any], stage: str) -> int:
    """Number of blocks in a stage."""
    return len({m[1] for name in weights for m in [re.match(re.escape(stage) + r"(\d+)\.conv1\.weight$", name)] if m})


def published_strides(network: nn.Module) -> nn.Module:
    """Give MONAI's ResNet the strides and dilations of MedicalNet, in place, so that the features are MedicalNet's own.

    MedicalNet halves the image in the first convolution, the pooling and the second stage, and dilates by 2 and 4 in
    the last two; MONAI halves it there again. The weights are the same, the function is not: the features of frozen
    MedicalNet weights are the published ones only with this. The last feature map has 1/8 of the image's side then,
    where MONAI's has 1/32 (1/16 with its default first stride).

    Args:
        network: a ``monai.networks.nets.ResNet``.

    Returns:
        ``network``.

    Raises:
        InputError: it is another network.

    >>> import torch
    >>> from monai.networks.nets import ResNet
    >>> network = ResNet("basic", [1, 1, 1, 1], [4, 8, 8, 8], spatial_dims=3, n_input_channels=1, conv1_t_stride=2)
    >>> last, seen = published_strides(network).layer4, []
    >>> _ = last.register_forward_hook(lambda layer, given, out: seen.append(out.shape[2:]))
    >>> _ = network(torch.zeros(1, 1, 32, 32, 32))
    >>> tuple(seen[0])  # an eighth of the image's side
    (4, 4, 4)
    """
    if not isinstance(network, ResNet):
        raise InputError(
            f"MedicalNet's strides are for MONAI's ResNet, not for {type(network).__name__}",
            hint="load them into monai.networks.nets.ResNet",
        )
    network.conv1.stride = (2,) * network.conv1.weight[0, 0].ndim
    for stage, dilation in ((network.layer3, 2), (network.layer4, 4)):
        for name, module in stage.named_modules():
            if isinstance(module, _ConvNd):
                module.stride = (1,) * len(module.stride)
                if max(module.kernel_size) > 1:
                    module.dilation = module.padding = (dilation,) * len(module.stride)
            shortcut = getattr(module, "downsample", None)
            if getattr(shortcut, "keywords", None):  # shortcut A: a partial function
                shortcut.keywords["stride"] = 1  # type: ignore[union-attr]
            if name and hasattr(module, "stride") and not isinstance(module, _ConvNd):
                module.stride = 1  # the block's own note of it
    return network
