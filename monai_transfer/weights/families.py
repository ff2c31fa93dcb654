"""Which network a bare checkpoint belongs to, where its names and shapes are those of a published family.

A file of weights does not say what it was computed by. For the families of ``docs/weights.md`` the names of the tensors
say the network and their shapes its sizes; for the rest the user names the network.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from monai_transfer.errors import InputError
from monai_transfer.weights.dialects import find_state_dicts
from monai_transfer.weights.key_functions import without_wrappers
from monai_transfer.weights.medicalnet import resnet_arguments
from monai_transfer.weights.nnunet import dynunet_arguments
from monai_transfer.weights.published_preprocessing import PREPROCESSING, Preprocessing

__all__ = ["Family", "find_family"]

Weights = Mapping[str, Tensor]
_NETS = "monai.networks.nets."

# EfficientNet b0 to b8: channels of the last convolution and number of blocks tell which; images as published
_EFFICIENTNETS = {
    (1280, 16): ("b0", 224), (1280, 23): ("b1", 240), (1408, 23): ("b2", 260), (1536, 26): ("b3", 300),
    (1792, 32): ("b4", 380), (2048, 39): ("b5", 456), (2304, 45): ("b6", 528), (2560, 55): ("b7", 600),
    (2816, 61): ("b8", 672),
}  # fmt: skip
_RESNETS: dict[tuple[str, tuple[int, ...]], str] = {
    ("basic", (1, 1, 1, 1)): "resnet10", ("basic", (2, 2, 2, 2)): "resnet18", ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50", ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152", ("bottleneck", (3, 24, 36, 3)): "resnet200",
}  # fmt: skip
_SENETS: dict[tuple[tuple[int, ...], int], str] = {
    ((3, 4, 6, 3), 1): "SEResNet50", ((3, 4, 23, 3), 1): "SEResNet101", ((3, 8, 36, 3), 1): "SEResNet152",
    ((3, 4, 6, 3), 32): "SEResNext50", ((3, 4, 23, 3), 32): "SEResNext101", ((3, 8, 36, 3), 64): "SENet154",
}  # fmt: skip


# TorchXRayVision's default_pathologies, the outputs of its densenet121-res224-all
_XRAY_FINDINGS = (
    "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion",
    "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture",
    "Lung Opacity", "Enlarged Cardiomediastinum",
)  # fmt: skip
_IMAGENET_CLASSES = (1000, 1001, 21841, 21843)


@dataclass(frozen=True)
class Family:
    """A published family of weights, as one file shows it.

    Attributes:
        name: what the weights are.
        network: the network as a config, with the file's own channels and outputs.
        dense: it says something about every voxel; else one thing about an image.
        dims: spatial dimensions. channels: of the images.
        preprocessing: what its authors do to images; ``None``: unknown.
        encoder: a config of MONAI's ``FlexibleUNet`` around the same weights, for a segmentation; or ``None``.
        note: what the user should know.
        weights: in place of the file's, where they had to be turned.
        partial: the file holds an encoder alone; the rest of the network starts fresh.
        head: ``softmax`` or ``sigmoid`` where the family's outputs are known. classes: their names, likewise.
    """

    name: str
    network: dict[str, Any]
    dense: bool
    dims: int
    channels: int
    preprocessing: Preprocessing | None = None
    encoder: dict[str, Any] | None = None
    note: str = ""
    weights: dict[str, Tensor] | None = None
    head: str | None = None
    partial: bool = False
    classes: list[str] | None = None


def find_family(content: Mapping[str, Any]) -> Family | None:
    """The family of a checkpoint's content; ``None`` where its names and shapes are of none that is known.

    Args:
        content: what the file holds: a state dict, or nested dictionaries with one.

    Raises:
        InputError: it holds no weights.

    >>> from monai.networks.nets import DenseNet121
    >>> family = find_family(DenseNet121(2, 3, 1000).state_dict())
    >>> family.name, family.network["block_config"], family.preprocessing.name
    ('DenseNet', [6, 12, 24, 16], 'ImageNet')
    """
    for weights in find_state_dicts(content).values():
        plain = {without_wrappers(name): tensor for name, tensor in weights.items()}
        for recognise in _FAMILIES:
            found = recognise(plain)
            if found is not None:
                return found
    return None


def _densenet(weights: Weights) -> Family | None:
    stem, prefix = _one(weights, r"(.*?)features\.conv0\.weight")
    if stem is None:
        return None
    layer = re.escape(prefix) + r"features\.denseblock(\d+)\.denselayer(\d+)\.(?:layers\.)?conv\.?2\.weight"
    blocks = Counter(int(m[1]) for name in weights for m in [re.fullmatch(layer, name)] if m)
    first = _tensor(weights, re.escape(prefix) + r"features\.denseblock1\.denselayer1\.(?:layers\.)?conv\.?2\.weight")
    if first is None or sorted(blocks) != list(range(1, len(blocks) + 1)):
        return None
    growth, bottleneck = first.shape[0], first.shape[1]
    head = _tensor(weights, re.escape(prefix) + r"(?:classifier|class_layers\.out)\.weight")
    dims, channels, outputs = stem.ndim - 2, stem.shape[1], 1000 if head is None else head.shape[0]
    xray = dims == 2 and channels == 1 and (outputs == 18 or f"{prefix}op_threshs" in weights)
    return Family(
        "TorchXRayVision DenseNet" if xray else "DenseNet",
        {
            "_target_": _NETS + "DenseNet",
            "spatial_dims": dims,
            "in_channels": channels,
            "out_channels": outputs,
            "init_features": stem.shape[0],
            "growth_rate": growth,
            "block_config": [blocks[number] for number in sorted(blocks)],
            "bn_size": bottleneck // growth,
        },
        dense=False,
        dims=dims,
        channels=channels,
        preprocessing=PREPROCESSING["xray"] if xray else _imagenet(dims, channels, head),
        head="sigmoid" if xray else None,
        classes=list(_XRAY_FINDINGS) if xray and outputs == len(_XRAY_FINDINGS) else None,
    )


def _senet(weights: Weights) -> Family | None:
    squeeze, prefix = _one(weights, r"(.*?)layer1\.0\.se_(?:module|layer)\.fc(?:1|\.0)\.weight")
    stem = next((t for n, t in weights.items() if n.startswith(f"{prefix}layer0.") and t.ndim > 3), None)
    grouped = _tensor(weights, re.escape(prefix) + r"layer1\.0\.conv2\.(?:conv\.)?weight")
    if squeeze is None or stem is None or grouped is None:
        return None
    stages = tuple(_count(weights, rf"{re.escape(prefix)}layer{n}\.(\d+)\.conv1\..*weight") for n in range(1, 5))
    name = _SENETS.get((stages, grouped.shape[0] // grouped.shape[1]))
    if name is None:
        return None
    dims, channels = stem.ndim - 2, stem.shape[1]
    head = _tensor(weights, re.escape(prefix) + r"last_linear\.weight")
    outputs = 1000 if head is None else head.shape[0]
    network = {"_target_": _NETS + name, "spatial_dims": dims, "in_channels": channels, "num_classes": outputs}
    return Family(
        name, network, dense=False, dims=dims, channels=channels, preprocessing=_imagenet(dims, channels, head)
    )


def _resnet(weights: Weights) -> Family | None:
    try:
        arguments = resnet_arguments(weights, num_classes=1000)
    except InputError:
        return None
    head = _tensor(weights, r"(?:.*\.)?fc\.weight")
    dims, channels = arguments["spatial_dims"], arguments["n_input_channels"]
    arguments["num_classes"] = 2 if head is None else head.shape[0]
    name = _RESNETS.get((arguments["block"], tuple(arguments["layers"])))
    medicalnet = dims == 3 and channels == 1 and head is None
    encoder = None
    if name is not None and dims == 2:
        encoder = _flexible(name, channels)
    return Family(
        f"{'MedicalNet' if medicalnet else ''} {name or 'ResNet'}".strip(),
        {"_target_": _NETS + "ResNet", **arguments},
        dense=False,
        dims=dims,
        channels=channels,
        preprocessing=PREPROCESSING["medicalnet"] if medicalnet else _imagenet(dims, channels, head),
        encoder=encoder,
        note="the strides and dilations of MedicalNet's last stages have no argument in MONAI's ResNet; "
        "monai_transfer.weights.medicalnet.published_strides sets them" if medicalnet else "",
    )  # fmt: skip


def _efficientnet(weights: Weights) -> Family | None:
    head, prefix = _one(weights, r"(.*?)_?conv_head\.(?:conv\.)?weight")
    depthwise = r"(?:_blocks\.(?:\d+\.)?\d+\._depthwise_conv|blocks\.\d+\.\d+\.conv_dw)\.(?:conv\.)?weight"
    stem = _tensor(weights, re.escape(prefix) + r"_?conv_stem\.(?:conv\.)?weight")
    if head is None or stem is None:
        return None
    blocks = sum(1 for name in weights if re.fullmatch(re.escape(prefix) + depthwise, name))
    kind = _EFFICIENTNETS.get((head.shape[0], blocks))
    if kind is None:
        return None
    name, size = f"efficientnet-{kind[0]}", kind[1]
    dims, channels = stem.ndim - 2, stem.shape[1]
    last = _tensor(weights, re.escape(prefix) + r"(?:_fc|classifier)\.weight")
    network = {
        "_target_": _NETS + "EfficientNetBN",
        "model_name": name,
        "pretrained": False,
        "spatial_dims": dims,
        "in_channels": channels,
        "num_classes": 1000 if last is None else last.shape[0],
    }
    timm = any(name.startswith(f"{prefix}blocks.") for name in weights)
    note = "names of timm: where the model's name has no tf_, padding and epsilon differ, and so does the function"
    return Family(
        name, network, dense=False, dims=dims, channels=channels, encoder=_flexible(name, channels),
        preprocessing=_imagenet(dims, channels, last, size), note=note if timm else "",
    )  # fmt: skip


def _vit(weights: Weights) -> Family | None:
    patch, prefix = _one(weights, r"(.*?)patch_embed\.proj\.weight")
    positions = weights.get(f"{prefix}pos_embed")
    mlp = weights.get(f"{prefix}blocks.0.mlp.fc1.weight")
    if patch is None or positions is None or mlp is None:
        return None
    dims, hidden = patch.ndim - 2, patch.shape[0]
    number = positions.shape[1] - (f"{prefix}cls_token" in weights)
    side = round(number ** (1 / dims))
    if side**dims != number or hidden % 64:
        return None
    heads = hidden // 64
    return Family(
        "ViT",
        {
            "_target_": _NETS + "ViT",
            "spatial_dims": dims,
            "in_channels": patch.shape[1],
            "img_size": [side * n for n in patch.shape[2:]],
            "patch_size": list(patch.shape[2:]),
            "hidden_size": hidden,
            "mlp_dim": mlp.shape[0],
            "num_layers": _count(weights, re.escape(prefix) + r"blocks\.(\d+)\..*"),
            "num_heads": heads,
            "classification": True,
            "num_classes": 2,
            "post_activation": "none",
            "qkv_bias": f"{prefix}blocks.0.attn.qkv.bias" in weights,
        },
        dense=False,
        dims=dims,
        channels=patch.shape[1],
        note=f"weights do not show the number of attention heads; published ones have 64 features each, here {heads}. "
        "Colour statistics are not known: masked autoencoders use ImageNet's, timm's augreg weights 0.5 and 0.5",
    )


def _swin_unetr(weights: Weights) -> Family | None:
    patch, prefix = _one(weights, r"(.*?)patch_embed\.proj\.weight")
    if patch is None or not any(re.match(re.escape(prefix) + r"layers1\.0\.", name) for name in weights):
        return None
    stage = re.escape(prefix) + r"layers%d\.0\.(?:0\.)?blocks\."
    tables = [
        _tensor(weights, stage % n + r"0\.attn\.relative_position_bias_table") for n in range(1, 5)
    ]  # rows by window, columns by head
    depths = [_count(weights, stage % n + r"(\d+)\..*") for n in range(1, 5)]
    whole = prefix.endswith("swinViT.")
    above = prefix.removesuffix("swinViT.")
    out = weights.get(f"{above}out.conv.conv.weight")
    dims = patch.ndim - 2
    if any(table is None for table in tables) or not all(depths):
        return None
    found = [table for table in tables if table is not None]
    window = round((round(found[0].shape[0] ** (1 / dims)) + 1) / 2)
    network: dict[str, Any] = {
        "_target_": _NETS + "SwinUNETR",
        "spatial_dims": dims,
        "in_channels": patch.shape[1],
        "out_channels": 2 if out is None else out.shape[0],
        "feature_size": patch.shape[0],
        "depths": depths,
        "num_heads": [table.shape[1] for table in found],
    }
    network |= {"window_size": window} if window != 7 else {}
    network |= {"patch_size": patch.shape[2]} if patch.shape[2] != 2 else {}
    network |= {"use_v2": True} if any(f"{prefix}layers1c." in name for name in weights) else {}
    pretext = any(re.search(r"\.mlp\.fc1\.weight$", name) for name in weights)
    key = "swinvit" if pretext else "suprem" if _of_suprem(weights) else None
    note = "" if whole or out is not None else "these are weights of the encoder; the decoder starts fresh"
    return Family(
        "SuPreM SwinUNETR" if key == "suprem" else "SwinUNETR",
        network,
        dense=True,
        dims=dims,
        channels=patch.shape[1],
        preprocessing=PREPROCESSING[key] if key else None,
        note=note,
        partial=bool(note),
    )


def _segresnet(weights: Weights) -> Family | None:
    stem, prefix = _one(weights, r"(.*?)convInit\.conv\.weight")
    if stem is None:
        return None
    start = re.escape(prefix)
    stages = _count(weights, start + r"down_layers\.(\d+)\..*")
    down = [_count(weights, rf"{start}down_layers\.{n}\.(\d+)\.conv1\.conv\.weight") for n in range(stages)]
    up = [_count(weights, rf"{start}up_layers\.{n}\.(\d+)\.conv1\.conv\.weight") for n in range(stages - 1)]
    out = _tensor(weights, start + r"conv_final\.2\.conv\.weight")
    suprem = _of_suprem(weights)
    return Family(
        "SuPreM SegResNet" if suprem else "SegResNet",
        {
            "_target_": _NETS + "SegResNet",
            "spatial_dims": stem.ndim - 2,
            "init_filters": stem.shape[0],
            "in_channels": stem.shape[1],
            "out_channels": 2 if out is None else out.shape[0],
            "blocks_down": down,
            "blocks_up": up,
        },
        dense=True,
        dims=stem.ndim - 2,
        channels=stem.shape[1],
        preprocessing=PREPROCESSING["suprem"] if suprem else None,
    )


def _segresnet_ds(weights: Weights) -> Family | None:
    stem, prefix = _one(weights, r"(.*?)conv_init\.weight")
    if stem is None:
        return None
    start = re.escape(prefix)
    stages = _count(weights, start + r"layers\.(\d+)\.blocks\..*")
    down = [_count(weights, rf"{start}layers\.{n}\.blocks\.(\d+)\.conv1\.weight") for n in range(stages)]
    if not stages:
        return None
    above = prefix.removesuffix("encoder.")
    head = _tensor(weights, re.escape(above) + r"up_layers\.\d+\.head\.weight")
    vista = any(name.startswith(("image_encoder.", "class_head.", "point_head.")) for name in weights)
    batch = f"{prefix}layers.0.blocks.0.norm1.running_mean" in weights
    heads = _count(weights, re.escape(above) + r"up_layers\.(\d+)\.head\.weight")
    partial = not any(name.startswith(f"{above}up_layers.") for name in weights)
    notes = ["the decoder starts fresh"] if partial else []
    notes += ["VISTA3D's heads for classes and points are left out"] if vista else []
    return Family(
        "VISTA3D's image encoder" if vista else "SegResNetDS",
        {
            "_target_": _NETS + "SegResNetDS",
            "spatial_dims": stem.ndim - 2,
            "init_filters": stem.shape[0],
            "in_channels": stem.shape[1],
            "out_channels": 2 if head is None else head.shape[0],
            "blocks_down": down,
            "norm": "batch" if batch else "instance",
            "dsdepth": max(1, heads),
        },
        dense=True,
        dims=stem.ndim - 2,
        channels=stem.shape[1],
        preprocessing=PREPROCESSING["vista3d"] if vista else None,
        note="; ".join(notes),
        partial=partial,
    )


def _plain_nnunet(weights: Weights) -> Family | None:
    # nnU-Net reads images z, y, x, MONAI x, y, z: kernels are turned, images stay
    turned = {
        name: tensor.permute(0, 1, *range(tensor.ndim - 1, 1, -1)).contiguous() if tensor.ndim > 3 else tensor
        for name, tensor in weights.items()
    }
    try:
        arguments = dynunet_arguments(turned)
    except InputError:
        return None
    return Family(
        "nnU-Net",
        {"_target_": _NETS + "DynUNet", **arguments},
        dense=True,
        dims=arguments["spatial_dims"],
        channels=arguments["in_channels"],
        note="the file does not hold nnU-Net's plans, which say spacing, normalisation and axis order (z, y, x is "
        "taken): name its results folder instead if you have it",
        weights=turned,
    )


_FAMILIES: tuple[Callable[[Weights], Family | None], ...] = (
    _densenet, _senet, _resnet, _efficientnet, _vit, _swin_unetr, _segresnet, _segresnet_ds, _plain_nnunet,
)  # fmt: skip


def _imagenet(dims: int, channels: int, head: Tensor | None, size: int = 224) -> Preprocessing | None:
    """ImageNet's, where the first layer takes colour pictures and the head, if there is one, has ImageNet's classes."""
    if (dims, channels) != (2, 3) or (head is not None and head.shape[0] not in _IMAGENET_CLASSES):
        return None
    known = PREPROCESSING["imagenet"]
    return known if size == 224 else known.at_size(size)


def _of_suprem(weights: Weights) -> bool:
    """SuPreM keeps its backbone under this name, beside embeddings of organs and what makes heads of them."""
    sign = r"(module\.)?(backbone\.|organ_embedding|text_to_vision\.|precls_conv\.|controller\.)"
    return any(re.match(sign, name) for name in weights)


def _flexible(backbone: str, channels: int) -> dict[str, Any]:
    return {
        "_target_": _NETS + "FlexibleUNet",
        "in_channels": channels,
        "out_channels": 2,
        "backbone": backbone,
        "pretrained": False,
        "spatial_dims": 2,
    }


def _one(weights: Weights, pattern: str) -> tuple[Tensor | None, str]:
    """The first tensor whose name matches, and the pattern's first group."""
    for name, tensor in weights.items():
        match = re.fullmatch(pattern, name)
        if match:
            return tensor, match[1]
    return None, ""


def _tensor(weights: Weights, pattern: str) -> Tensor | None:
    return next((tensor for name, tensor in weights.items() if re.fullmatch(pattern, name)), None)


def _count(weights: Weights, pattern: str) -> int:
    """How many different numbers stand in the names' first group."""
    return len({m[1] for name in weights for m in [re.fullmatch(pattern, name)] if m})
