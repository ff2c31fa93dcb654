"""Depth order: each parameter in one level, in the order of the forward pass, whatever the order of registration."""

from __future__ import annotations

import logging

import monai.networks.nets as nets
import pytest
import torch
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.networks.depth import depth_groups, encoder_decoder

SWIN = {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "spatial_dims": 2}
VIT = {"hidden_size": 8, "mlp_dim": 8, "num_heads": 2, "spatial_dims": 2}
NETWORKS = {
    "unet": lambda: nets.UNet(2, 1, 2, (4, 8, 8), (2, 2), num_res_units=1),
    "attention_unet": lambda: nets.AttentionUnet(2, 1, 2, (4, 8, 8), (2, 2)),
    "basic_unet": lambda: nets.BasicUNet(2, features=(4, 4, 4, 4, 4, 4)),
    "basic_unet_plus_plus": lambda: nets.BasicUNetPlusPlus(2, features=(4, 4, 4, 4, 4, 4)),
    "segresnet": lambda: nets.SegResNet(2, 8, blocks_down=(1, 1, 1), blocks_up=(1, 1)),
    "segresnet_ds": lambda: nets.SegResNetDS(2, 8, 1, 2, blocks_down=(1, 1, 1), dsdepth=2),
    "dynunet": lambda: nets.DynUNet(2, 1, 2, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 4, 4]),
    "vnet": lambda: nets.VNet(2),
    "mednext": lambda: nets.MedNeXt(2, 4, 1, 2),
    "unetr": lambda: nets.UNETR(1, 2, (32, 32), feature_size=4, **VIT),
    "swin_unetr": lambda: nets.SwinUNETR(1, 2, **SWIN),
    "flexible_unet": lambda: nets.FlexibleUNet(1, 2, "resnet10", pretrained=False, spatial_dims=2),
    "resnet": lambda: nets.resnet10(spatial_dims=2, n_input_channels=1, num_classes=2, widen_factor=0.125),
    "densenet": lambda: nets.DenseNet(2, 1, 2, init_features=4, growth_rate=2, block_config=(1, 1, 1)),
    "efficientnet": lambda: nets.EfficientNetBN("efficientnet-b0", pretrained=False, in_channels=1),
    "vit": lambda: nets.ViT(1, (8, 8), (4, 4), num_layers=3, classification=True, **VIT),
}
LEVELS = {  # levels in all, of which encoder
    "unet": (6, 3), "attention_unet": (6, 3), "basic_unet": (10, 5), "basic_unet_plus_plus": (10, 5),
    "segresnet": (8, 4), "segresnet_ds": (7, 4), "dynunet": (6, 3), "vnet": (11, 5), "mednext": (11, 6),
    "unetr": (19, 13), "swin_unetr": (12, 6), "flexible_unet": (11, 5), "resnet": (6, 5), "densenet": (5, 4),
    "efficientnet": (10, 9), "vit": (5, 4),
}  # fmt: skip


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_parameter_in_one_level(kind, caplog):
    network = NETWORKS[kind]()
    with caplog.at_level(logging.WARNING):
        levels = depth_groups(network)
    assert not caplog.records, "the family is known, no guess is needed"
    names = [n for level in levels for n in level]
    assert sorted(names) == sorted(n for n, _ in network.named_parameters())
    encoder, decoder = encoder_decoder(network)
    assert (len(levels), sum(set(level) <= set(encoder) for level in levels)) == LEVELS[kind]
    assert encoder + decoder == names


@pytest.mark.parametrize("kind", ["unet", "attention_unet", "segresnet", "segresnet_ds", "dynunet", "mednext", "vnet"])
def test_order_is_that_of_the_forward_pass(kind):
    """The first use of a level's layers follows that of the level before it."""
    network = NETWORKS[kind]().eval()
    owner = {name: index for index, level in enumerate(depth_groups(network)) for name in level}
    used: list[int] = []
    for prefix, module in network.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            level = owner[f"{prefix}.weight"]
            module.register_forward_hook(lambda *_, level=level: used.append(level))
    with torch.no_grad():
        network(torch.randn(1, 1, 32, 32))
    head = max(owner.values())  # with deep supervision in use before the end as well
    assert used[-1] == head
    first = {level: used.index(level) for level in set(used) - {head}}
    assert sorted(first, key=lambda level: first[level]) == sorted(first) and len(first) > 3


def test_user_names_the_order():
    network = nn.ModuleDict({"late": nn.Linear(2, 2), "early": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    assert depth_groups(network, ["early", ["late.bias"], "late", "head"]) == [
        ["early.weight", "early.bias"], ["late.bias"], ["late.weight"], ["head.weight", "head.bias"],
    ]  # fmt: skip
    with pytest.raises(InputError, match="leave out 2 parameters"):
        depth_groups(network, ["early", "late"])
    with pytest.raises(InputError, match="'middle'"):
        depth_groups(network, ["early", "late", "middle", "head"])


def test_unknown_network_is_ordered_as_defined_and_said(caplog):
    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(3))
            self.stem = nn.Conv2d(1, 2, 3)
            self.stages = nn.ModuleList([nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)])
            self.out = nn.Linear(2, 2)

    with caplog.at_level(logging.WARNING):
        levels = depth_groups(nn.Sequential(Custom()))
    assert [level[0] for level in levels] == ["0.token", "0.stem.weight", "0.stages.0.weight", "0.stages.1.weight", "0.out.weight"]  # fmt: skip # noqa: E501
    assert "order in which its modules are defined" in caplog.text


def test_encoder_by_name_and_without_one():
    network = NETWORKS["unet"]()
    encoder, decoder = encoder_decoder(network, ["model.0", "model.1.submodule.0"])
    assert (
        all(n.startswith(("model.0.", "model.1.submodule.0.")) for n in encoder) and "model.2.0.conv.weight" in decoder
    )
    with pytest.raises(InputError, match="cannot tell"):
        encoder_decoder(network, "nothing")
    with pytest.raises(InputError, match="cannot tell"):
        encoder_decoder(NETWORKS["swin_unetr"]().swinViT)
