"""Norm only and bias only: exactly these learn, and a network that has none is refused aloud."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import UNet, resnet10
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.strategies.bias_only import BiasOnly
from monai_transfer.strategies.norm_only import NormOnly


def step(network: nn.Module, strategy) -> set[str]:
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD(strategy.param_groups(network), lr=0.1, weight_decay=0.1)
    output = network.train()(torch.randn(2, 1, 16, 16))
    (output * torch.randn_like(output)).sum().backward()
    optimizer.step()
    return {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}


def resnet() -> nn.Module:
    return resnet10(spatial_dims=2, n_input_channels=1, num_classes=2, widen_factor=0.125)


def unet(norm) -> nn.Module:
    return UNet(2, 1, 2, (4, 8), (2,), num_res_units=0, norm=norm, dropout=0.1)


def test_norm_only_moves_norm_layers_alone():
    network, strategy = resnet(), NormOnly()
    moved = step(strategy.apply(network), strategy)
    norms = {n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert {m.rpartition(".")[0] for m in moved} == norms
    assert {m.rpartition(".")[2] for m in moved} == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}  # fmt: skip # noqa: E501
    strategy = NormOnly(statistics=False)
    assert {m.rpartition(".")[2] for m in step(strategy.apply(network), strategy)} == {"weight", "bias"}


@pytest.mark.parametrize("norm", [("group", {"num_groups": 2}), ("instance", {"affine": True}), "batch"])
def test_norm_only_kinds(norm):
    network, strategy = unet(norm), NormOnly()
    moved = step(strategy.apply(network), strategy)
    assert moved and all(".N." in name for name in moved)
    assert not [m for m in network.modules() if isinstance(m, nn.Dropout) and m.training]


def test_norm_only_without_affine_parameters_is_refused():
    with pytest.raises(InputError, match="InstanceNorm2d without affine parameters"):
        NormOnly().apply(unet("instance"))  # MONAI's default
    with pytest.raises(InputError, match="no norm layers"):
        NormOnly().apply(nn.Sequential(nn.Conv2d(1, 2, 3)))
    with pytest.raises(InputError, match="InstanceNorm2d"):
        NormOnly(head=True).apply(unet("instance"))  # a head alone is not what was asked for


def test_bias_only_moves_biases_alone():
    network, strategy = resnet(), BiasOnly()
    moved = step(strategy.apply(network), strategy)
    assert moved and all(name.endswith(".bias") for name in moved)
    assert moved == {n for n, _ in network.named_parameters() if n.endswith(".bias")}
    with pytest.raises(InputError, match="no biases"):
        BiasOnly().apply(nn.Sequential(nn.Conv2d(1, 2, 3, bias=False)))


@pytest.mark.parametrize("kind", [NormOnly, BiasOnly])
def test_head_too(kind):
    network, strategy = resnet(), kind(head=True)
    assert {"fc.weight", "fc.bias"} <= step(strategy.apply(network), strategy)
    strategy = kind(head="layer4.0.conv1")
    moved = step(strategy.apply(resnet()), strategy)
    assert "layer4.0.conv1.weight" in moved and "fc.weight" not in moved
