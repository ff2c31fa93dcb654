"""Opt-in: published files, where ``WEIGHTS_DIR`` holds them. Each must fill its network but for what is named here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from monai.networks import nets
from torch import nn

from monai_transfer.weights import load_weights
from monai_transfer.weights.medicalnet import resnet_flags


def medicalnet(depth: int) -> Callable[[], nn.Module]:
    return lambda: getattr(nets, f"resnet{depth}")(**resnet_flags(depth))


FILES: dict[str, Callable[[], nn.Module]] = {
    **{f"resnet_{depth}*.pth": medicalnet(depth) for depth in (10, 18, 34, 50, 101, 152, 200)},
    "model_swinvit.pt": lambda: nets.SwinUNETR(1, 2, feature_size=48).swinViT,
    "ssl_pretrained_weights.pth": lambda: nets.SwinUNETR(1, 2, feature_size=48).swinViT,
    "supervised_suprem_swinunetr*.pth": lambda: nets.SwinUNETR(1, 32, feature_size=48).swinViT,
    "densenet121*.pth": lambda: nets.DenseNet121(2, 3, 1000),
    "se_resnet50*.pth": lambda: nets.SEResNet50(spatial_dims=2, in_channels=3, num_classes=1000),
    "efficientnet-b0*.pth": lambda: nets.EfficientNetBN(
        "efficientnet-b0", False, spatial_dims=2, in_channels=3, num_classes=1000
    ),
    "mae_pretrain_vit_base.pth": lambda: nets.ViT(3, (224,) * 2, (16,) * 2, spatial_dims=2, qkv_bias=True),
}


@pytest.mark.parametrize("pattern", FILES)
def test_published_file_fills_its_network(pattern):
    folder = os.environ.get("WEIGHTS_DIR")
    found = sorted(Path(folder).rglob(pattern)) if folder else []
    if not found:
        pytest.skip(f"set WEIGHTS_DIR to a folder that holds {pattern}")
    for path in found:
        report = load_weights(FILES[pattern](), path)
        # norm_cross_attn is MONAI's own; batch counts are newer than some files
        left = [n for n in report.missing if not n.endswith("num_batches_tracked") and "norm_cross_attn" not in n]
        assert report.coverage > 0.99 and left == report.skipped == [], f"{path.name}\n{report}"
