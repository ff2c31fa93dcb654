"""The depth order of a network's parameters: stem first, then level by level, the head last.

Registration order is not enough: MONAI's SegResNet lists all decoder blocks before all upsamplings, AttentionUnet lists
what runs after the bottleneck before it. So each family of networks is a small table of name patterns in the order of
the forward pass, encoder and decoder apart; whatever fits none is ordered by its user, or as its modules are defined.

A level is what fine-tuning schemes call a layer: a stage of a ResNet, DenseNet or EfficientNet, a block of a
transformer, one resolution of a U-Net on its way down or up.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.networks.head import find_head
from monai_transfer.networks.wrappers import unwrap

__all__ = ["depth_groups", "encoder_decoder"]

logger = logging.getLogger(__name__)

# Patterns match from the start of a parameter's name; a group (\d+) is a level in ascending order, (?P<down>...) in
# descending order, and a repeated "1.submodule." counts as its number of repeats. A leading "+" joins the level before.
_ANY = r"(?:\w+\.)??"  # an optional wrapper, such as `backbone.` or `encoder.`
_NESTED = r"((?:1\.submodule\.)*)"
_VIT = r"(?:(?:vit|encoder|backbone|image_encoder)\.)?"  # not `encoder2.`, which UNETR's skip branches are called
_LAST = 10**6
_UP = [r"decoder\.blocks\.(\d+)\.", r"segmentation_head\."]  # FlexibleUNet
_FAMILIES: dict[str, tuple[list[str], list[str]]] = {
    "ResNet, SENet": (
        [_ANY + r"(?:conv1|bn1|layer0)\.", _ANY + r"layer(\d+)\."],
        [*_UP, _ANY + r"(?:fc|last_linear)\."],
    ),
    "DenseNet": (
        [_ANY + r"features\.(?:conv|norm)0\.", _ANY + r"features\.(?:denseblock|transition)(\d+)\.",
         "+" + _ANY + r"features\.norm5\."],
        [_ANY + r"(?:class_layers|classifier)\."],
    ),
    "EfficientNet": (
        [_ANY + r"(?:_conv_stem|_bn0)\.", _ANY + r"_blocks\.(\d+)\.", _ANY + r"(?:_conv_head|_bn1)\.",
         r"+encoder\._fc\."],
        [*_UP, _ANY + r"_fc\."],
    ),
    "ViT, UNETR": (
        [_VIT + r"(?:cls_token$|patch_embedding\.)", _VIT + r"blocks\.(\d+)\.", "+" + _VIT + r"norm\."],
        [r"encoder\d\.", r"decoder(?P<down>\d)\.", r"(?:classification_head|out|conv3d_transpose(?:_1)?)\."],
    ),
    "MAE": (
        [r"(?:cls_token$|patch_embedding\.)", r"blocks\.(\d+)\.", r"+norm\."],
        [r"(?:decoder_embed\.|mask_tokens?$|decoder_pos_embed)", r"decoder_blocks\.(\d+)\.", r"+decoder_norm\.",
         r"decoder_pred\."],
    ),
    "Swin, SwinUNETR": (
        [_ANY + r"patch_embed\.", _ANY + r"layers(\d+)c?\.", "+" + _ANY + r"norm\.", r"encoder10\."],
        [r"(?:encoder|decoder)(?P<down>\d)\.", r"out\."],
    ),
    "UNet, AttentionUnet": (
        [rf"model\.{_NESTED}0\.", r"model\.(?:1\.submodule\.)+(?!\d)"],
        [rf"model\.(?P<down>{_NESTED[1:-1]})(?:1\.(?:attention|upconv|merge)|2)\."],
    ),
    "BasicUNet": ([r"conv_0\.", r"down_(\d+)\."], [r"upcat_(?P<down>\d+)\.", r"final_conv\."]),
    "BasicUNetPlusPlus": ([r"conv_(\d+)_0\."], [r"upcat_\d+_(\d+)\.", r"final_conv_"]),
    "SegResNet": (
        [r"convInit\.", r"down_layers\.(\d+)\."],
        [r"vae_", r"up_(?:samples|layers)\.(\d+)\.", r"conv_final\."],
    ),
    "SegResNetDS": ([r"encoder\.conv_init\.", r"encoder\.layers\.(\d+)\."], [r"up_layers\.(\d+)\."]),
    "DynUNet": (
        [r"input_block\.", r"downsamples\.(\d+)\.", r"bottleneck\."],
        [r"upsamples\.(\d+)\.", r"(?:output_block|deep_supervision_heads)\."],
    ),
    "VNet": (
        [r"in_tr\.", r"down_tr(\d+)\."],
        [r"up_tr(?P<down>\d+)\.", r"out_tr\."],
    ),
    "MedNeXt": (
        [r"stem\.", r"(?:enc_stages|down_blocks)\.(\d+)\.", r"bottleneck\."],
        [r"(?:dec_stages|up_blocks)\.(\d+)\.", r"(?:out_0|out_blocks)\."],
    ),
    "Fcn": ([r"stages\.(\d+)\.", r"neck\."], [r"(?:score|skip_scores|ups|last_up)\."]),
    "Classifier, Regressor": ([r"net\.layer_(\d+)\."], [r"final\."]),
    "AutoEncoder": ([r"encode\.encode_(\d+)\.", r"intermediate\."], [r"decode\.decode_(\d+)\."]),
}  # fmt: skip


def depth_groups(network: nn.Module, groups: Sequence[str | Sequence[str]] | None = None) -> list[list[str]]:
    """Parameter names in depth order, one list per level: stem first, head last; every parameter in exactly one.

    Args:
        network: the network; a ``DistributedDataParallel`` around it is looked through.
        groups: the order where it is not found by itself: module or parameter names, each with all that lies below it,
            in depth order; several of one level in a list of their own. The longest name that fits decides.

    Raises:
        InputError: ``groups`` leaves parameters out or names what the network has not.

    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
    >>> depth_groups(network)
    [['0.weight', '0.bias'], ['2.weight', '2.bias']]
    """
    return _order(unwrap(network), groups)[0]


def encoder_decoder(network: nn.Module, encoder: str | Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """Parameter names of the encoder (to the bottleneck) and of the rest; of a classifier the rest is its head.

    Args:
        network: the network.
        encoder: the names of the encoder's modules, where they are not found by themselves.

    Raises:
        InputError: a name is not in the network, or one of the two parts would be empty.

    >>> from monai.networks.nets import UNet
    >>> from monai_transfer.networks.depth import encoder_decoder
    >>> encoder, decoder = encoder_decoder(UNet(2, 1, 2, (4, 8), (2,)))
    >>> len(encoder), len(decoder)
    (6, 2)
    """
    network = unwrap(network)
    if encoder is not None:
        prefixes = [encoder] if isinstance(encoder, str) else list(encoder)
        names = [name for name, _ in network.named_parameters()]
        inside = {name for name in names for prefix in prefixes if _below(name, prefix)}
        first, rest = [n for n in names if n in inside], [n for n in names if n not in inside]
    else:
        levels, count = _order(network, None)
        first, rest = ([n for level in part for n in level] for part in (levels[:count], levels[count:]))
    if not first or not rest:
        raise InputError(
            f"cannot tell the encoder of {type(network).__name__} from its decoder",
            hint="name the encoder's modules, and leave some for the decoder",
        )
    return first, rest


def _order(network: nn.Module, groups: Sequence[str | Sequence[str]] | None) -> tuple[list[list[str]], int]:
    """The levels, and how many of them are the encoder."""
    names = [name for name, _ in network.named_parameters()]
    if groups is not None:
        levels = _by_user(type(network).__name__, names, groups)
        return levels, len(levels) - 1
    for encoder, decoder in _FAMILIES.values():
        found = [_key(name, [*encoder, *decoder]) for name in names]
        keys = [key for key in found if key is not None]
        if len(keys) == len(names) and len(set(keys)) > 1:
            ends = {place: max((k for p, k in keys if p == place and k != _LAST), default=0) for place, _ in keys}
            keys = [(place, ends[place] if level == _LAST else level) for place, level in keys]
            ordered = sorted(set(keys))
            levels = [[n for n, k in zip(names, keys, strict=True) if k == key] for key in ordered]
            return _head_last(network, levels, sum(key[0] < len(encoder) for key in ordered))
    logger.warning(
        "the depth order of %s is taken from the order in which its modules are defined; pass groups= to name it",
        type(network).__name__,
    )
    levels = _as_defined(network)
    return _head_last(network, levels, len(levels) - 1)


def _key(name: str, rules: list[str]) -> tuple[int, int] | None:
    """Place of a parameter: the number of its rule and its level within it."""
    for place, rule in enumerate(rules):
        found = re.match(rule.removeprefix("+"), name)
        if found is None:
            continue
        if rule.startswith("+"):
            return place - 1, _LAST
        down = found.groupdict().get("down")
        text = down if down is not None else next((g for g in found.groups() if g is not None), "0")
        level = int(text) if text.isdigit() else text.count("submodule")
        return place, -level if down is not None else level
    return None


def _head_last(network: nn.Module, levels: list[list[str]], encoder: int) -> tuple[list[list[str]], int]:
    """Give the head a level of its own at the end, wherever its parameters stood."""
    try:
        heads = find_head(network)
    except InputError:
        return levels, encoder
    head = [name for level in levels for name in level if any(_below(name, prefix) for prefix in heads)]
    kept = [[name for name in level if name not in set(head)] for level in levels]
    encoder = sum(bool(level) for level in kept[:encoder])
    return [level for level in [*kept, head] if level], encoder


def _as_defined(network: nn.Module) -> list[list[str]]:
    """Levels as modules are defined: the children of the first module that has several with parameters."""
    prefix, module = "", network
    while True:
        own = [prefix + name for name, _ in module.named_parameters(recurse=False)]
        children = [(name, child) for name, child in module.named_children() if any(True for _ in child.parameters())]
        if own or len(children) != 1:
            break
        prefix, module = f"{prefix}{children[0][0]}.", children[0][1]
    levels: list[list[str]] = [own]
    for name, child in children:
        units = [(name, child)]
        if isinstance(child, nn.ModuleList):
            units = [(f"{name}.{index}", item) for index, item in child.named_children()]
        levels += [[f"{prefix}{unit}.{n}" for n, _ in item.named_parameters()] for unit, item in units]
    known = [name for name, _ in network.named_parameters()]  # a module that stands in two places counts once
    seen: set[str] = set()
    result = []
    for level in levels:
        fresh = [name for name in level if name in set(known) - seen]
        seen.update(fresh)
        if fresh:
            result.append(fresh)
    return result


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _by_user(kind: str, names: list[str], groups: Sequence[str | Sequence[str]]) -> list[list[str]]:
    prefixes = [(p, i) for i, group in enumerate(groups) for p in ([group] if isinstance(group, str) else group)]
    levels: list[list[str]] = [[] for _ in groups]
    used, left_out = set(), []
    for name in names:
        fits = [(len(prefix), prefix, index) for prefix, index in prefixes if _below(name, prefix)]
        if fits:
            _, prefix, index = max(fits)
            levels[index].append(name)
            used.add(prefix)
        else:
            left_out.append(name)
    if left_out:
        raise InputError(
            f"the groups leave out {len(left_out)} parameters of {kind}, such as {left_out[0]!r}",
            hint="name the modules of every level, from the stem to the head",
        )
    if unknown := [prefix for prefix, _ in prefixes if prefix not in used]:
        raise InputError(f"{kind} has no parameters of its own for the group {unknown[0]!r}", hint="leave it out")
    return levels
