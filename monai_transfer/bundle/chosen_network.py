"""What the rest of a bundle must know of a network: its levels, the images it takes, where it is deepest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from monai_transfer.component_table import build_config
from monai_transfer.errors import InputError

__all__ = ["bottleneck", "image_size", "levels", "taken_patch"]


def image_size(network: dict[str, Any] | None, dims: int) -> list[int] | None:
    """The one size of images that a network takes (a ViT's, UNETR's), where its config says one.

    >>> image_size({"_target_": "monai.networks.nets.ViT", "img_size": 224}, 2)
    [224, 224]
    """
    # MONAI 1.6 has dropped the argument of SwinUNETR, which takes other sizes as well
    told = (network or {}).get("img_size") if not str((network or {}).get("_target_")).endswith("SwinUNETR") else None
    sizes = [told] * dims if isinstance(told, int) else list(told) if isinstance(told, list | tuple) else []
    return sizes if len(sizes) == dims and all(isinstance(n, int) and n > 0 for n in sizes) else None


def levels(network: dict[str, Any]) -> int:
    """How often the network halves its input, so that patches divide."""
    strides = network.get("strides")
    if isinstance(strides, list):
        return sum(1 for stride in strides if (max(stride) if isinstance(stride, list) else stride) > 1)
    return 5 if network["_target_"].rpartition(".")[2] in ("SwinUNETR", "FlexibleUNet") else 4


def taken_patch(network: dict[str, Any], channels: int, patch: Sequence[int], *, fixed: bool) -> list[int]:
    """``patch`` if the network takes an image of that size, else with its short axes made as long as it needs.

    Found by passing an empty image through it. A pooling network halves its input several times, and the few slices of
    a thick volume run out before that.

    Raises:
        InputError: the network takes none of them, or not ``patch`` itself where that is ``fixed``.
    """
    built = build_config(network).eval()
    fault = ""
    for least in (1,) if fixed else (1, 16, 32, 64):
        longer = [max(least, voxels) for voxels in patch]
        try:
            with torch.no_grad():
                built(torch.zeros(1, channels, *longer))
        except (RuntimeError, ValueError, AssertionError) as error:
            fault = fault or (str(error).splitlines() or [type(error).__name__])[0]
        else:
            return longer
    name = network["_target_"].rsplit(".", 1)[-1]
    raise InputError(
        f"the network {name} does not take images of {' x '.join(map(str, patch))} voxels ({fault})",
        hint="pass --patch with longer axes",
    )


def bottleneck(network: dict[str, Any]) -> str | None:
    """The deepest block of MONAI's UNet or DynUNet, whose features carry the domain; else what enters the head."""
    if network["_target_"] == "monai.networks.nets.DynUNet":
        return "bottleneck"
    if network["_target_"] != "monai.networks.nets.UNet":
        return None
    return "model.1" + ".submodule.1" * (len(network["channels"]) - 2) + ".submodule"
