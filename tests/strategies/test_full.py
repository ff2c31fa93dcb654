"""Full fine-tuning: every parameter in one group, or two groups whose rates keep their proportion."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.strategies.full import Full


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_everything_learns_in_one_group():
    net = Full().apply(network())
    (group,) = Full().param_groups(net)
    assert [id(p) for p in group["params"]] == [id(p) for p in net.parameters()]
    assert torch.optim.SGD([group], lr=0.1).param_groups[0]["lr"] == 0.1


def test_backbone_learns_more_slowly():
    strategy = Full(backbone_lr_scale=0.1, head="3")
    net = strategy.apply(network())
    optimizer = torch.optim.AdamW(strategy.param_groups(net), lr=0.01)
    assert [round(g["lr"], 9) for g in optimizer.param_groups] == [0.001, 0.01]
    assert {id(p) for p in optimizer.param_groups[1]["params"]} == {id(p) for p in net[3].parameters()}
    assert len(optimizer.param_groups[0]["params"]) == 4
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert [round(g["lr"], 9) for g in optimizer.param_groups] == [0.0005, 0.005]
    optimizer.step(), scheduler.step()
    twin = torch.optim.AdamW(strategy.param_groups(net), lr=1.0)
    twin.load_state_dict(optimizer.state_dict())  # resuming: the saved rates, not scaled a second time
    assert [round(g["lr"], 9) for g in twin.param_groups] == [0.0005, 0.005]


def test_an_explicit_rate_wins():
    groups = Full(backbone_lr_scale=0.1, head="3").param_groups(network())
    groups[0]["lr"] = 0.3
    assert [g["lr"] for g in torch.optim.SGD(groups, lr=0.01).param_groups] == [0.3, 0.01]


def test_nothing_left_or_bad_scale_is_refused():
    with pytest.raises(InputError, match="leaves no parameter"):
        Full().param_groups(network().requires_grad_(False))
    with pytest.raises(InputError, match="must be positive"):
        Full(backbone_lr_scale=0.0)
