"""The network that nnU-Net's plans ask for, and whether MONAI has the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError

__all__ = ["Architecture", "read_architecture"]

_CLASSES = ("PlainConvUNet", "ResidualEncoderUNet")


@dataclass(frozen=True)
class Architecture:
    """A U-Net of the package ``dynamic_network_architectures``, axes in nnU-Net's order.

    Attributes:
        kind: ``PlainConvUNet`` or ``ResidualEncoderUNet``.
        features: per stage. kernels, strides: per stage and axis.
        blocks: convolutions (plain) or residual blocks per stage of the encoder. decoder: convolutions per stage.
        conv_bias: convolutions have a bias (which the norm behind them takes out).
        eps: of the instance norms. slope: of the leaky ReLUs.
    """

    kind: str
    features: list[int]
    kernels: list[list[int]]
    strides: list[list[int]]
    blocks: list[int]
    decoder: list[int]
    conv_bias: bool
    eps: float
    slope: float

    @property
    def in_monai(self) -> bool:
        """Whether ``DynUNet`` computes the same."""
        twos = set(self.blocks) == {2} and set(self.decoder) == {2}
        usual = self.eps == 1e-5 and self.slope == 0.01
        return self.kind == "PlainConvUNet" and twos and usual and set(self.strides[0]) == {1} and len(self.strides) > 2


def read_architecture(config: Mapping[str, Any], dims: int, path: Path) -> Architecture:
    """From a configuration of the plans, in the form of nnU-Net 2.0 to 2.3 or later.

    Raises:
        InputError: it asks for another network, or one of these with other layers.
    """
    if "architecture" in config:
        told = config["architecture"]
        name, given = str(told["network_class_name"]), dict(told["arch_kwargs"])
    else:
        stages = len(config["conv_kernel_sizes"])
        base, most = config["UNet_base_num_features"], config["unet_max_num_features"]
        name = str(config["UNet_class_name"])
        per_stage = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
        given = {
            "features_per_stage": [min(base * 2**stage, most) for stage in range(stages)],
            "kernel_sizes": config["conv_kernel_sizes"],
            "strides": config["pool_op_kernel_sizes"],
            per_stage: config["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": config["n_conv_per_stage_decoder"],
            "conv_bias": True,
        }
    kind = name.rpartition(".")[2]
    if kind not in _CLASSES:
        hint = f"{' and '.join(_CLASSES)} are"
        raise InputError(f"the network {kind} is not rebuilt here", path=path, hint=hint)
    norm, act = str(given.get("norm_op", "InstanceNorm")), str(given.get("nonlin", "LeakyReLU"))
    odd = [f"norm {norm}"] if "InstanceNorm" not in norm else []
    odd += [f"activation {act}"] if "LeakyReLU" not in act else []
    odd += ["dropout"] if given.get("dropout_op") else []
    odd += ["layers in another order"] if given.get("nonlin_first") else []
    options = given.get("norm_op_kwargs") or {}
    odd += ["norms without scale and shift"] if options.get("affine") is False else []
    if odd:
        raise InputError(
            f"the network {kind} has {', '.join(odd)}, which is not rebuilt here",
            path=path,
            hint="predict with nnU-Net itself, or take another configuration",
        )
    count = len(given["features_per_stage"])
    blocks = given.get("n_conv_per_stage") if kind == "PlainConvUNet" else given.get("n_blocks_per_stage")
    return Architecture(
        kind=kind,
        features=[int(n) for n in given["features_per_stage"]],
        kernels=[_per_axis(kernel, dims) for kernel in given["kernel_sizes"]],
        strides=[_per_axis(stride, dims) for stride in given["strides"]],
        blocks=_per_stage(blocks, count),
        decoder=_per_stage(given["n_conv_per_stage_decoder"], count - 1),
        conv_bias=bool(given.get("conv_bias", True)),
        eps=float(options.get("eps", 1e-5)),
        slope=float((given.get("nonlin_kwargs") or {}).get("negative_slope", 0.01)),
    )


def _per_axis(value: Any, dims: int) -> list[int]:
    return [int(value)] * dims if isinstance(value, int) else [int(v) for v in value]


def _per_stage(value: Any, count: int) -> list[int]:
    return [int(value)] * count if isinstance(value, int) else [int(v) for v in value]
