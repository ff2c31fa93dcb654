"""Random weights through the original code and, after ``load_weights``, through MONAI's network: equal outputs.

The original packages ran once (``originals/make.py``, which says which versions); their names, shapes and outputs are
in the JSON files there. Every dialect that is called implementation-verified has its test here or, where the original
is no package, beside a reference written after its published code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from monai.networks import nets
from torch import nn

from monai_transfer.weights import load_weights
from monai_transfer.weights.nnunet import dynunet_arguments

RESNET_2D = {"spatial_dims": 2, "n_input_channels": 3, "num_classes": 10, "conv1_t_stride": 2}
SENET_2D = {"spatial_dims": 2, "in_channels": 3, "num_classes": 10}
VIT = {"hidden_size": 24, "mlp_dim": 48, "num_layers": 3, "num_heads": 4, "spatial_dims": 2, "qkv_bias": True}
EFFICIENTNET = partial(nets.EfficientNetBN, "efficientnet-b0", False, spatial_dims=2, in_channels=3, num_classes=10)

NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "timm_vit": (lambda: nets.ViT(3, (32, 32), (8, 8), **VIT), "ViT as in timm and MAE"),
    "timm_efficientnet_b0": (EFFICIENTNET, "EfficientNet as in EfficientNet-PyTorch or timm"),
    "efficientnet_pytorch_b0": (EFFICIENTNET, "EfficientNet as in EfficientNet-PyTorch or timm"),
    "torchvision_densenet121": (lambda: nets.DenseNet121(2, 3, 10), "DenseNet as in torchvision"),
    "torchvision_resnet18": (lambda: nets.resnet18(**RESNET_2D, bias_downsample=False), "plain"),
    "torchvision_resnet50": (lambda: nets.resnet50(**RESNET_2D, bias_downsample=False), "plain"),
    "pretrainedmodels_se_resnet50": (lambda: nets.SEResNet50(**SENET_2D), "SENet as in pretrainedmodels"),
    "pretrainedmodels_se_resnext50": (lambda: nets.SEResNext50(**SENET_2D), "SENet as in pretrainedmodels"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_output_of_the_original(name, original):
    known = original(name)
    build, dialect = NETWORKS[name]
    network = build().eval()
    report = load_weights(network, known.state)
    assert report.dialect.startswith(dialect) and report.adapted == report.skipped == report.unused == []
    assert all("norm_cross_attn" in n for n in report.missing), report
    with torch.no_grad():
        output = network(known.image)
    known.check(output[0] if isinstance(output, tuple) else output)


@pytest.mark.parametrize("dims", [2, 3])
def test_output_of_nnunet(dims, original):
    """Four stages; in 3D with a flat kernel and a flat stride first, as nnU-Net plans for thick slices."""
    known = original(f"nnunet_plain_{dims}d")
    checkpoint = {"network_weights": known.state}
    network = nets.DynUNet(**dynunet_arguments(checkpoint, deep_supervision=True))
    report = load_weights(network, checkpoint)
    assert report.coverage == 1 and report.missing == report.skipped == []
    with torch.no_grad():
        main = network.eval()(known.image)
        stacked = network.train()(known.image)  # MONAI repeats the lower resolutions up to the full one
    known.check(main)
    for number, expected in enumerate(known.outputs):
        factor = [full // part for full, part in zip(main.shape[2:], expected["shape"][2:], strict=True)]
        known.check(stacked[:, number][(..., *[slice(None, None, f) for f in factor])], number)
