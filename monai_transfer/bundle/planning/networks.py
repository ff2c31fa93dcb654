"""Networks of a bundle without a source: U-Nets for what is dense, DenseNets for whole images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai_transfer.bundle.planning.size import Size
from monai_transfer.bundle.planning.topology import Topology
from monai_transfer.errors import InputError, closest

__all__ = ["DENSE", "choose_name", "densenet", "dynunet", "unet"]


def _features(size: Size, levels: int, dims: int) -> list[int]:
    return [min(size.most_features, size.features[dims] * 2**level) for level in range(levels)]


def unet(levels: Topology, dims: int, channels: int, outputs: int, size: Size) -> dict[str, Any]:
    """MONAI's ``UNet`` with one residual unit per level. BatchNorm: InstanceNorm hides the domain from alignment."""
    features = _features(size, len(levels.strides), dims)
    return {
        "_target_": "monai.networks.nets.UNet",
        "spatial_dims": dims,
        "in_channels": channels,
        "out_channels": outputs,
        "channels": features,
        "strides": [stride[0] if len(set(stride)) == 1 else stride for stride in levels.strides[1:]],
        "num_res_units": 1,
        "norm": "BATCH",
    }


def dynunet(
    levels: Topology, dims: int, channels: int, outputs: int, size: Size, *, residual: bool = False
) -> dict[str, Any]:
    """MONAI's ``DynUNet``: nnU-Net's architecture, kernels by level, with supervision of the upper decoder levels.

    Args:
        levels: strides and kernels.
        dims, channels, outputs: of the images and the network.
        size: features.
        residual: each level's two convolutions are bypassed (the idea of nnU-Net's ResEnc presets, arXiv:2404.09556,
            which have more blocks per level).
    """
    return {
        "_target_": "monai.networks.nets.DynUNet",
        "spatial_dims": dims,
        "in_channels": channels,
        "out_channels": outputs,
        "kernel_size": levels.kernels,
        "strides": levels.strides,
        "upsample_kernel_size": levels.strides[1:],
        "filters": _features(size, len(levels.strides), dims),
        "norm_name": "batch",
        "deep_supervision": len(levels.strides) > 2,
        "deep_supr_num": max(1, min(2, len(levels.strides) - 2)),
        "res_block": residual,
    }


def densenet(dims: int, channels: int, outputs: int, size: Size) -> dict[str, Any]:
    """MONAI's ``DenseNet`` for whole images."""
    return {
        "_target_": "monai.networks.nets.DenseNet",
        "spatial_dims": dims,
        "in_channels": channels,
        "out_channels": outputs,
        "init_features": 2 * size.growth,
        "growth_rate": size.growth,
        "block_config": size.blocks,
        "bn_size": 2,
    }


DENSE: dict[str, Callable[..., dict[str, Any]]] = {"UNet": unet, "DynUNet": dynunet}
"""By name, what ``--network`` offers for segmentation and localization."""


def choose_name(name: str | None, levels: Topology, residual: bool = False) -> tuple[str, str]:
    """Which of them, and why.

    Raises:
        InputError: another name, or residual blocks in a network without.
    """
    if residual:
        if name not in (None, "DynUNet"):
            raise InputError(f"--residual is for DynUNet, and {name} was asked for", hint="leave one of them out")
        return "DynUNet", "residual blocks, as asked"
    if name is not None:
        if name not in DENSE:
            raise InputError(f"no planned network is called {name!r}", hint=closest(name, DENSE))
        return name, "as asked"
    if any(1 in kernel for kernel in levels.kernels):
        return "DynUNet", "slices are thick: its kernels span them only at the levels where voxels are alike"
    return "UNet", "voxels are nearly alike in all axes"
