"""Cuts proved on real networks, refusals with the reason, and networks left as they were."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.networks.nets import (
    Classifier,
    DenseNet,
    DynUNet,
    EfficientNetBN,
    ResNet,
    SegResNet,
    SEResNet50,
    UNet,
    ViT,
)
from torch import nn

from monai_transfer.networks.freezing import freeze_all_but
from monai_transfer.networks.split import Cut, cut_network
from monai_transfer.strategies.full import Full
from monai_transfer.strategies.head_only import HeadOnly

RUN = SimpleInferer()


def resnet(dims: int) -> nn.Module:
    return ResNet("basic", [1, 1, 1, 1], [4, 8, 8, 8], spatial_dims=dims, n_input_channels=1, num_classes=3)


def densenet(dims: int) -> nn.Module:
    return DenseNet(dims, 1, 3, init_features=4, growth_rate=4, block_config=(1, 1))


def vit() -> nn.Module:
    size = {"img_size": (16, 16, 16), "patch_size": (8, 8, 8), "hidden_size": 24, "mlp_dim": 32}
    return ViT(1, **size, num_layers=2, num_heads=2, classification=True, num_classes=3)


NETS = {
    "densenet2d": (lambda: densenet(2), (1, 16, 16)),
    "densenet3d": (lambda: densenet(3), (1, 8, 8, 8)),
    "resnet2d": (lambda: resnet(2), (1, 32, 32)),
    "resnet3d": (lambda: resnet(3), (1, 16, 16, 16)),
    "seresnet2d": (lambda: SEResNet50(spatial_dims=2, in_channels=1, num_classes=3, layers=(1, 1, 1, 1)), (1, 32, 32)),
    "efficientnet2d": (lambda: EfficientNetBN("efficientnet-b0", False, in_channels=1, num_classes=3), (1, 32, 32)),
    "vit3d": (vit, (1, 16, 16, 16)),
    "unet2d": (lambda: UNet(2, 1, 3, (4, 8), (2,), norm="batch"), (1, 16, 16)),
    "unet3d": (lambda: UNet(3, 1, 3, (4, 8), (2,), num_res_units=2, norm="batch"), (1, 8, 8, 8)),
    "segresnet3d": (lambda: SegResNet(3, init_filters=8, in_channels=1, out_channels=3), (1, 16, 16, 16)),
}


@pytest.mark.parametrize("name", NETS)
def test_head_of_the_features_is_the_network(name):
    make, shape = NETS[name]
    network = HeadOnly().apply(make())
    before = copy.deepcopy(network.state_dict())
    image = torch.randn(3, *shape)
    cut = cut_network(network, image, RUN)
    assert isinstance(cut, Cut), cut.reason
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key
    # another batch, other weights in the head, the mode of a trainer but for dropout
    network.eval()
    with torch.no_grad():
        for parameter in cut.head.parameters():
            parameter.add_(torch.randn_like(parameter))
        other = torch.randn(2, *shape)
        whole, parts = network(other), cut.head(cut.features(other, RUN))
    if isinstance(whole, tuple):
        assert len(whole) == len(parts) and parts[1] is None
        whole, parts = whole[0], parts[0]
    torch.testing.assert_close(parts, whole)
    learning = {id(p) for p in network.parameters() if p.requires_grad}
    assert learning and learning <= {id(p) for p in cut.head.parameters()}


def test_vit_goes_on_behind_its_linear_layer():
    make, shape = NETS["vit3d"]
    cut = cut_network(HeadOnly().apply(make()), torch.randn(2, *shape), RUN)
    assert cut.layers == ("classification_head",) and isinstance(cut.head.steps[0][-1], nn.Tanh)


def test_a_sequential_gives_its_tail():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 8), nn.ReLU(), nn.Linear(8, 2)
    )
    freeze_all_but(network, [network[3], network[5]])
    cut = cut_network(network, torch.randn(3, 1, 8, 8), RUN)
    assert cut.layers == ("3", "4", "5")
    classifier = HeadOnly().apply(Classifier((1, 16, 16), 3, (4, 8), (2, 2), last_act="softmax"))
    cut = cut_network(classifier, torch.randn(3, 1, 16, 16), RUN)
    assert cut and isinstance(cut.head.steps[-1], nn.Softmax)


class Doubled(nn.Module):
    """Something after the head that no module stands for."""

    def __init__(self, start_at_zero: bool = False) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1)
        if start_at_zero:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return 2 * self.head(self.body(x))


@pytest.mark.parametrize("start_at_zero", [False, True])
def test_work_after_the_head_is_found_even_with_a_head_of_zeros(start_at_zero):
    network = HeadOnly("head").apply(Doubled(start_at_zero))
    cut = cut_network(network, torch.randn(2, 1, 8, 8), RUN)
    assert not cut and "something comes after" in cut.reason


@pytest.mark.parametrize(
    ("norm", "word"), [("batch", "bn"), (("batch", {"track_running_stats": False}), "not the same twice")]
)
def test_norm_layers_that_are_not_frozen_are_found(norm, word):
    network = nn.Sequential()
    network.add_module("conv", nn.Conv2d(1, 4, 3))
    options = norm[1] if isinstance(norm, tuple) else {}
    network.add_module("bn", nn.BatchNorm2d(4, **options))
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flat", nn.Flatten())
    network.add_module("out", nn.Linear(4, 2))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith("out"))
    before = copy.deepcopy(network.state_dict())
    cut = cut_network(network, torch.randn(4, 1, 8, 8), RUN)
    assert not cut and word in cut.reason
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_dropout_in_the_frozen_part_is_found():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5), nn.Linear(32, 2))
    for parameter in network[1].parameters():
        parameter.requires_grad_(False)
    cut = cut_network(network, torch.randn(4, 1, 8, 8), RUN)
    assert not cut and "dropout" in cut.reason


def test_refusals_say_why():
    image = torch.randn(2, 1, 16, 16)
    make, _ = NETS["unet2d"]
    full = cut_network(Full().apply(make()), image, RUN)
    assert not full and "does not lie in one part" in full.reason
    nothing = make().requires_grad_(False)
    assert "no parameter" in cut_network(nothing, image, RUN).reason
    deep = DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 8], deep_supervision=True, deep_supr_num=1)
    assert not cut_network(HeadOnly().apply(deep), image, RUN)
    windows = SlidingWindowInferer((8, 8), overlap=0.0)
    sliding = cut_network(HeadOnly().apply(make()), image, windows)
    assert not sliding


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.body = nn.Linear(16, 16), nn.Linear(16, 16)
        self.body.weight = self.head.weight
        self.body.bias.requires_grad_(False)

    def forward(self, x):
        return self.head(self.body(x.flatten(1)).relu())


def test_tied_weights_are_found():
    cut = cut_network(Tied(), torch.randn(2, 1, 4, 4), RUN)
    assert not cut and "shared" in cut.reason
