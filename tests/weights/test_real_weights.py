"""Opt-in: published files, where ``WEIGHTS_DIR`` holds them. Each must fill its network but for what is named here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from monai.networks import nets
from torch import nn

from monai_transfer.weights import load_weights
from monai_transfer.weights.medicalnet import resnet_arguments
from monai_transfer.weights.nnunet import dynunet_arguments
from monai_transfer.weights.resenc import residual_unet


def resnet(path: Path) -> nn.Module:
    return nets.ResNet(**resnet_arguments(path))


def swin(_: Path) -> nn.Module:
    return nets.SwinUNETR(1, 2, feature_size=48).swinViT


def senet(kind: str) -> Callable[[Path], nn.Module]:
    return lambda _: getattr(nets, kind)(spatial_dims=2, in_channels=3, num_classes=1000)


def efficientnet(path: Path) -> nn.Module:
    return nets.EfficientNetBN(path.name[:15], False, spatial_dims=2, in_channels=3, num_classes=1000)


def suprem(_: Path) -> nn.Module:
    return nets.SegResNet(3, 16, 1, 32, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1))


def mae(path: Path) -> nn.Module:
    width, depth, heads = {"base": (768, 12, 12), "large": (1024, 24, 16)}[path.stem.rpartition("_")[2]]
    sizes = {"hidden_size": width, "mlp_dim": 4 * width, "num_layers": depth, "num_heads": heads}
    return nets.ViT(3, (224,) * 2, (16,) * 2, spatial_dims=2, qkv_bias=True, **sizes)


def resenc(path: Path) -> nn.Module:
    pytest.importorskip("dynamic_network_architectures", reason="pip install --no-deps dynamic-network-architectures")
    return residual_unet(path)


FILES: dict[str, Callable[[Path], nn.Module]] = {
    **{f"resnet_{d}{more}.pth": resnet for d in (10, 18, 34, 50, 101, 152, 200) for more in ("", "_23dataset")},
    **{f"resnet{d}-*.pth": resnet for d in (18, 34, 50, 101, 152)},
    "model_swinvit.pt": swin,
    "ssl_pretrained_weights.pth": swin,
    "supervised_suprem_swinunetr*.pth": swin,
    "supervised_suprem_segresnet*.pth": suprem,
    "densenet121-*.pth": lambda _: nets.DenseNet121(2, 3, 1000),
    "densenet169-*.pth": lambda _: nets.DenseNet169(2, 3, 1000),
    "densenet201-*.pth": lambda _: nets.DenseNet201(2, 3, 1000),
    "se_resnet50-*.pth": senet("SEResNet50"),
    "se_resnet101-*.pth": senet("SEResNet101"),
    "se_resnext50_32x4d-*.pth": senet("SEResNext50"),
    "se_resnext101_32x4d-*.pth": senet("SEResNext101"),
    "efficientnet-b*-*.pth": efficientnet,
    "mae_pretrain_vit_*.pth": mae,
    "nnunet/**/checkpoint_final.pth": lambda path: nets.DynUNet(**dynunet_arguments(path)),
    "resenc/**/checkpoint_final.pth": resenc,
}


@pytest.mark.parametrize("pattern", FILES)
def test_published_file_fills_its_network(pattern):
    folder = os.environ.get("WEIGHTS_DIR")
    found = sorted(Path(folder).rglob(pattern)) if folder else []
    if not found:
        pytest.skip(f"set WEIGHTS_DIR to a folder that holds {pattern}")
    for path in found:
        report = load_weights(FILES[pattern](path), path)
        # norm_cross_attn is MONAI's own; batch counts are newer than some files
        left = [n for n in report.missing if not n.endswith("num_batches_tracked") and "norm_cross_attn" not in n]
        assert report.coverage > 0.99 and left == report.skipped == [], f"{path.name}\n{report}"
