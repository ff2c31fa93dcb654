"""The network of a bundle without a source, by task and size; and what the rest of a bundle must know of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.bundle import ConfigParser

from monai_transfer.bundle.fit import DataFit
from monai_transfer.errors import InputError
from monai_transfer.tasks import get_task

__all__ = ["SIZES", "bottleneck", "choose_network", "levels", "taken_patch"]

_CHANNELS = {"small": [8, 16, 32], "medium": [16, 32, 64, 128], "large": [32, 64, 128, 256, 512]}
SIZES = tuple(_CHANNELS)
"""The sizes of networks and patches."""


def choose_network(task: str, fit: DataFit, labels: dict[int, str], size: str) -> dict[str, Any]:
    """The network without a source. BatchNorm, since InstanceNorm hides the domain from feature alignment."""
    channels = _CHANNELS[size]
    if get_task(task).dense:
        return {
            "_target_": "monai.networks.nets.UNet",
            "spatial_dims": fit.spatial_dims,
            "in_channels": fit.channels,
            "out_channels": len(labels),
            "channels": [c * 2 for c in channels] if fit.spatial_dims == 2 else channels,
            "strides": [2] * (len(channels) - 1),
            "num_res_units": 1,
            "norm": "BATCH",
        }
    growth = {"small": 8, "medium": 16, "large": 32}[size]
    return {
        "_target_": "monai.networks.nets.DenseNet",
        "spatial_dims": fit.spatial_dims,
        "in_channels": fit.channels,
        "out_channels": len(labels) or 1,
        "init_features": 2 * growth,
        "growth_rate": growth,
        "block_config": {"small": [2, 4, 4], "medium": [4, 8, 8], "large": [6, 12, 24, 16]}[size],
        "bn_size": 2,
    }


def levels(network: dict[str, Any]) -> int:
    """How often the network halves its input, so that patches divide."""
    strides = network.get("strides")
    if isinstance(strides, list):
        return sum(1 for stride in strides if (max(stride) if isinstance(stride, list) else stride) > 1)
    return 5 if "Swin" in network["_target_"] else 4


def taken_patch(network: dict[str, Any], channels: int, patch: Sequence[int], *, fixed: bool) -> list[int]:
    """``patch`` if the network takes an image of that size, else with its short axes made as long as it needs.

    Found by passing an empty image through it. A pooling network halves its input several times, and the few slices of
    a thick volume run out before that.

    Raises:
        InputError: the network takes none of them, or not ``patch`` itself where that is ``fixed``.
    """
    built = ConfigParser({"network": network}).get_parsed_content("network").eval()
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
    """The deepest block of a MONAI UNet, whose features carry the domain; elsewhere what enters the class head."""
    if network["_target_"] != "monai.networks.nets.UNet":
        return None
    return "model.1" + ".submodule.1" * (len(network["channels"]) - 2) + ".submodule"
