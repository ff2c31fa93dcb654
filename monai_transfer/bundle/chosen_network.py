"""The network of a bundle without a source, by task and size; and what the rest of a bundle must know of a network."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.fit import DataFit

__all__ = ["SIZES", "bottleneck", "choose_network", "levels"]

_CHANNELS = {"small": [8, 16, 32], "medium": [16, 32, 64, 128], "large": [32, 64, 128, 256, 512]}
SIZES = tuple(_CHANNELS)
"""The sizes of networks and patches."""


def choose_network(task: str, fit: DataFit, labels: dict[int, str], size: str) -> dict[str, Any]:
    """The network without a source. BatchNorm, since InstanceNorm hides the domain from feature alignment."""
    channels = _CHANNELS[size]
    if task in ("segmentation", "localization"):
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


def bottleneck(network: dict[str, Any]) -> str | None:
    """The deepest block of a MONAI UNet, whose features carry the domain; elsewhere what enters the class head."""
    if network["_target_"] != "monai.networks.nets.UNet":
        return None
    return "model.1" + ".submodule.1" * (len(network["channels"]) - 2) + ".submodule"
