"""The ends of MONAI's networks. The oracle is the constructor: build twice, see whose shapes depend on the argument."""

from __future__ import annotations

import monai.networks.nets as nets
import pytest
import torch
from torch import nn

from monai_transfer.networks.head import find_features, find_head, find_stem

TINY = {"features": (8, 8, 8, 8, 8, 8)}
DYN = {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2, 2, 2], "filters": [12, 12, 12, 12]}
VIT = {"img_size": (32, 32), "patch_size": (16, 16), "hidden_size": 48, "mlp_dim": 64, "num_heads": 4, "num_layers": 2}

NETWORKS = {
    "UNet": lambda i, o: nets.UNet(3, i, o, (8, 16, 32), (2, 2)),
    "UNet-residual": lambda i, o: nets.UNet(3, i, o, (8, 16, 32), (2, 2), num_res_units=2, norm="batch"),
    "UNet-narrow": lambda i, o: nets.UNet(2, i, o, (4, 5, 8), (2, 2), num_res_units=3),
    "BasicUNet": lambda i, o: nets.BasicUNet(3, i, o, **TINY),
    "BasicUNetPlusPlus": lambda i, o: nets.BasicUNetPlusPlus(3, i, o, **TINY),
    "SegResNet": lambda i, o: nets.SegResNet(3, 8, i, o),
    "SegResNetDS": lambda i, o: nets.SegResNetDS(3, 8, i, o, blocks_down=(1, 1, 1), dsdepth=2),
    "SegResNetDS2": lambda i, o: nets.SegResNetDS2(3, 8, i, o, blocks_down=(1, 1, 1), dsdepth=2),
    "DynUNet": lambda i, o: nets.DynUNet(3, i, o, **DYN),
    "DynUNet-deep": lambda i, o: nets.DynUNet(3, i, o, **DYN, deep_supervision=True, deep_supr_num=2, res_block=True),
    "UNETR": lambda i, o: nets.UNETR(i, o, (32,) * 3, feature_size=12, hidden_size=48, mlp_dim=64, num_heads=4),
    "SwinUNETR": lambda i, o: nets.SwinUNETR(i, o, feature_size=12, spatial_dims=2),
    "AttentionUnet": lambda i, o: nets.AttentionUnet(3, i, o, (8, 16, 32), (2, 2)),
    "VNet": lambda i, o: nets.VNet(2, i, o),
    "DenseNet": lambda i, o: nets.DenseNet121(2, i, o),
    "ResNet": lambda i, o: nets.resnet18(spatial_dims=2, n_input_channels=i, num_classes=o),
    "SENet": lambda i, o: nets.SEResNet50(spatial_dims=2, in_channels=i, num_classes=o),
    "EfficientNet": lambda i, o: nets.EfficientNetBN(
        "efficientnet-b0", False, spatial_dims=2, in_channels=i, num_classes=o
    ),
    "ViT": lambda i, o: nets.ViT(i, **VIT, classification=True, num_classes=o, spatial_dims=2),
    "ViT-perceptron": lambda i, o: nets.ViT(
        i, **VIT, proj_type="perceptron", classification=True, num_classes=o, spatial_dims=2, post_activation=None
    ),
    "FlexibleUNet": lambda i, o: nets.FlexibleUNet(i, o, "efficientnet-b0", spatial_dims=2),
    "FlexibleUNet-resnet": lambda i, o: nets.FlexibleUNet(i, o, "resnet18", spatial_dims=2),
    "MedNeXt": lambda i, o: nets.MedNeXtS(in_channels=i, out_channels=o, spatial_dims=2, deep_supervision=True),
    "HighResNet": lambda i, o: nets.HighResNet(2, i, o),
    "Classifier": lambda i, o: nets.Classifier((i, 32, 32), o, (8, 16), (2, 2)),
    "AutoEncoder": lambda i, o: nets.AutoEncoder(2, i, o, (8, 16), (2, 2)),
}


def layers_that_differ(a: nn.Module, b: nn.Module) -> list[str]:
    """Layers (not norms) with a parameter whose shape differs; each module once, by its first name."""
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    others = dict(b.named_modules())
    return [
        name
        for name, module in a.named_modules()
        if isinstance(module, kinds) and module.weight.shape != others[name].weight.shape
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_head_is_what_depends_on_the_number_of_classes(name):
    three, seven = NETWORKS[name](1, 3), NETWORKS[name](1, 7)
    assert find_head(three) == layers_that_differ(three, seven)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("channels", [1, 4])
def test_stem_is_what_depends_on_the_input_channels(name, channels):
    a, b = NETWORKS[name](channels, 4), NETWORKS[name](8, 4)
    assert find_stem(a) == layers_that_differ(a, b)


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in ("SENet", "DenseNet", "FlexibleUNet-resnet")])
def test_features_enter_the_layer_that_gives_the_main_output(name):
    """The oracle is a forward pass: the layer takes part in the main output, and what enters it are no class scores."""
    network = NETWORKS[name](1, 3).eval()
    layer = network.get_submodule(find_features(network))
    entered = []
    layer.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))
    dims = 3 if any(isinstance(module, nn.Conv3d) for module in network.modules()) else 2
    output = network(torch.randn(1, 1, *[64 if name == "SwinUNETR" else 32] * dims))
    while isinstance(output, (tuple, list)):
        output = output[-1] if name == "BasicUNetPlusPlus" else output[0]
    output.sum().backward()
    assert layer.weight.grad is not None
    assert len(entered) == 1 and entered[0].shape[-1 if entered[0].ndim < 4 else 1] != 3


def test_encoders_have_a_stem_but_no_head():
    swin = NETWORKS["SwinUNETR"](1, 2).swinViT
    resnet = nets.resnet18(spatial_dims=3, n_input_channels=1, feed_forward=False)
    vit = nets.ViT(1, **VIT, spatial_dims=2)
    assert find_head(swin) == find_head(resnet) == find_head(vit) == []
    assert find_features(vit) is None
    assert find_stem(swin) == ["patch_embed.proj"]
    assert find_stem(resnet) == ["conv1"]


def test_wrapped_networks_keep_their_prefix():
    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

    deep = Wrapper(NETWORKS["DynUNet-deep"](2, 3))
    assert find_head(deep)[0] == "inner.output_block.conv.conv"
    assert len(find_head(deep)) == 3
    assert find_stem(deep) == ["inner.input_block.conv1.conv", "inner.input_block.conv3.conv"]


def test_networks_outside_monai_and_without_layers():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 1), nn.ReLU(), nn.Linear(4, 2))
    assert find_stem(net) == ["0"]
    assert find_head(net) == ["4"]
    assert find_head(nn.ReLU()) == find_stem(nn.ReLU()) == []
