"""nnU-Net's network in MONAI's axis order: the config that builds it, and weights turned to fit.

nnU-Net reads images z, y, x, MONAI x, y, z. A convolution with its kernel's axes turned does to the turned image what
it did before, so the weights are turned once and images stay as MONAI has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from monai_transfer.component_table import build_config
from monai_transfer.config_text import expr
from monai_transfer.errors import InputError
from monai_transfer.nnunet.checkpoints import fold_weights
from monai_transfer.nnunet.model import NnunetModel
from monai_transfer.nnunet.steps import FoldMean, folds_in
from monai_transfer.weights.loading import load_weights
from monai_transfer.weights.reading import read_checkpoint
from monai_transfer.weights.source import Source

__all__ = ["FoldMean", "network_config", "nnunet_network", "turned_weights", "with_folds"]

INSTALL = "pip install --no-deps dynamic-network-architectures"


def network_config(model: NnunetModel, *, deep_supervision: bool = False) -> dict[str, Any]:
    """The network as a MONAI config: ``DynUNet`` where it computes the same, else nnU-Net's own class.

    Args:
        model: what ``read_model`` gave.
        deep_supervision: with its outputs at lower resolution, as nnU-Net trains.
    """
    made = model.architecture
    kernels, strides = ([model.turn(v) for v in values] for values in (made.kernels, made.strides))
    if made.in_monai:
        config: dict[str, Any] = {
            "_target_": "monai.networks.nets.DynUNet",
            "spatial_dims": model.dims,
            "in_channels": len(model.channels),
            "out_channels": len(model.labels),
            "kernel_size": kernels,
            "strides": strides,
            "upsample_kernel_size": strides[1:],
            "filters": made.features,
            "trans_bias": True,
        }
        if deep_supervision and len(strides) > 3:
            config |= {"deep_supervision": True, "deep_supr_num": len(strides) - 2}
        return config
    norm = "InstanceNorm2d" if model.dims == 2 else "InstanceNorm3d"
    blocks = "n_conv_per_stage" if made.kind == "PlainConvUNet" else "n_blocks_per_stage"
    return {
        "_target_": f"dynamic_network_architectures.architectures.unet.{made.kind}",
        "input_channels": len(model.channels),
        "n_stages": len(made.features),
        "features_per_stage": made.features,
        "conv_op": expr(f"torch.nn.Conv{model.dims}d"),
        "kernel_sizes": kernels,
        "strides": strides,
        blocks: made.blocks,
        "num_classes": len(model.labels),
        "n_conv_per_stage_decoder": made.decoder,
        "conv_bias": made.conv_bias,
        "norm_op": expr(f"torch.nn.{norm}"),
        "norm_op_kwargs": {"eps": made.eps, "affine": True},
        "nonlin": expr("torch.nn.LeakyReLU"),
        "nonlin_kwargs": {"inplace": True, "negative_slope": made.slope},
        "deep_supervision": deep_supervision,
    }


def turned_weights(model: NnunetModel, fold: str | None = None) -> dict[str, Tensor]:
    """The weights of a fold under nnU-Net's names, kernels in MONAI's axis order.

    Args:
        model: what ``read_model`` gave.
        fold: its name; default the first.

    Raises:
        InputError: there is no such fold, or its file cannot be read.
    """
    name = next(iter(model.folds)) if fold is None else fold
    if name not in model.folds:
        raise InputError(f"there is no fold {name!r}", path=model.folder, hint=f"there are {', '.join(model.folds)}")
    order = [2 + axis for axis in model.axes]
    return {
        key: tensor.permute(0, 1, *order).contiguous() if tensor.ndim == model.dims + 2 else tensor
        for key, tensor in fold_weights(model.folds[name]).items()
    }


def nnunet_network(model: NnunetModel, *, deep_supervision: bool = False) -> nn.Module:
    """The network with its weights, in eval mode; of several folds, the mean of their outputs.

    Raises:
        InputError: the weights do not fit the plans, or a package is missing.
    """
    networks = []
    for fold in model.folds:
        network = build_network(network_config(model, deep_supervision=deep_supervision))
        source = Source(turned_weights(model, fold), description=f"nnU-Net {model.name} fold {fold}")
        load_weights(network, source, min_coverage=0.99)
        networks.append(network.eval())
    return networks[0] if len(networks) == 1 else FoldMean(networks)


def build_network(config: dict[str, Any]) -> nn.Module:
    """Build what ``network_config`` says, with fresh weights.

    Raises:
        InputError: it needs the package ``dynamic_network_architectures``, which is not installed.
    """
    if config["_target_"].startswith("dynamic_network_architectures"):
        try:
            import dynamic_network_architectures.architectures.unet  # noqa: F401
        except ImportError as error:
            fault = f"this network needs the package dynamic_network_architectures ({error})"
            raise InputError(fault, hint=f"install it: {INSTALL}") from error
    network: nn.Module = build_config(config)
    return network


def with_folds(network: nn.Module, file: str | Path) -> nn.Module:
    """A network that takes the weights in a file: where these are of several folds, the mean of as many networks.

    Args:
        network: of one fold; its weights do not matter.
        file: a checkpoint.

    Raises:
        InputError: the file cannot be read.
    """
    state: Any = read_checkpoint(Path(file))[0] if Path(file).is_file() else None
    count = folds_in(state) if isinstance(state, Mapping) else 0
    return FoldMean(network).resize(count) if count else network
