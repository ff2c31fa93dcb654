"""Layer-wise decay: lr * gamma^(L - i) for each level, no weight decay for one-dimensional parameters."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import UNet, ViT
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.networks.depth import depth_groups
from monai_transfer.strategies.layer_decay import LayerDecay


@pytest.mark.parametrize(
    "network",
    [
        UNet(2, 1, 2, (4, 8, 8), (2, 2), norm="batch"),
        ViT(1, (8, 8), (4, 4), 8, 8, 3, 2, classification=True, num_classes=2, spatial_dims=2),
    ],
)
def test_rate_of_every_parameter(network):
    strategy = LayerDecay(gamma=0.5)
    optimizer = torch.optim.AdamW(strategy.param_groups(strategy.apply(network)), lr=0.1, weight_decay=0.05)
    rate = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    named = dict(network.named_parameters())
    levels = depth_groups(network)
    for index, level in enumerate(levels):
        for name in level:
            if named[name].requires_grad:
                assert rate[id(named[name])] == pytest.approx(0.1 * 0.5 ** (len(levels) - 1 - index)), name
                assert decay[id(named[name])] == (0.05 if named[name].ndim > 1 else 0.0), name
    assert len(rate) == sum(p.requires_grad for p in network.parameters())


def test_steps_are_scaled_and_named_groups_work():
    network = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1))
    strategy = LayerDecay(gamma=0.1, groups=["2", "1", "0"])
    optimizer = torch.optim.SGD(strategy.param_groups(network), lr=1.0)
    for parameter in network.parameters():
        parameter.data.zero_()
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert [round(layer.bias.item(), 6) for layer in network] == [-1.0, -0.1, -0.01]


def test_bad_gamma_is_refused():
    for gamma in (0, 1.5):
        with pytest.raises(InputError):
            LayerDecay(gamma=gamma)
