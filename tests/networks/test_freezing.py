"""Freezing: bitwise still in training mode, reversible, and carried along by copies."""

from __future__ import annotations

import copy

import torch
from torch import nn

from monai_transfer.networks.freezing import freeze, freeze_all_but, hold, learnable, thaw
from monai_transfer.networks.wrappers import unwrap


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2, affine=False), nn.Dropout(0.5), nn.Conv1d(2, 2, 3), nn.BatchNorm1d(2)
    )


def step(net: nn.Module) -> None:
    net.train()
    net(torch.randn(4, 1, 9)).square().sum().backward()


def test_freeze_and_thaw():
    net = network()
    net[3].weight.requires_grad_(False)  # by the user's own hand
    freeze(net[:4])
    assert learnable(net) == {"0.weight", "0.bias", "3.bias", "4.weight", "4.bias"}
    step(net)
    assert net[1].num_batches_tracked == 0 and net[4].num_batches_tracked == 1
    assert not net[2].training and net[0].weight.grad is None
    thaw(net)
    step(net)
    assert net[1].num_batches_tracked == 1 and net[2].training and net[0].weight.grad is not None
    assert not net[3].weight.requires_grad
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_hold_takes_modules_without_parameters_along():
    net = network()
    hold(net, {"0.weight", "0.bias"})
    step(net)
    assert net[1].num_batches_tracked == 0 and not net[2].training and net[3].weight.grad is not None
    hold(net, {"3.weight", "3.bias", "4.weight", "4.bias"}, gradients=True)
    net.zero_grad(set_to_none=True)
    step(net)
    assert net[1].num_batches_tracked == 1 and net[4].num_batches_tracked == 1, "the second is the step before"
    assert all(p.grad is not None for p in net.parameters()), "DDP counts on every gradient"
    hold(net, {"4.weight"})
    step(net)
    assert net[4].num_batches_tracked == 2, "a module of which a part learns is in training mode"


def test_holders_of_a_part_keep_their_mode():
    net = nn.Sequential(nn.Sequential(nn.Conv1d(1, 1, 1), nn.BatchNorm1d(1)), nn.Sequential(nn.BatchNorm1d(1)))
    freeze_all_but(net, [net[0][1]])
    net.train()(torch.randn(2, 1, 3))
    assert net.training and net[0].training and net[0][1].training
    assert not net[1].training and not net[0][0].training and not net[1][0].training


def test_copies_are_frozen_too():
    net = copy.deepcopy(network())
    freeze(net)
    twin = copy.deepcopy(net)
    twin.train()(torch.randn(4, 1, 9))
    assert twin[1].num_batches_tracked == 0
    thaw(twin)
    twin.train()(torch.randn(4, 1, 9))
    assert twin[1].num_batches_tracked == 1 and not learnable(net) ^ learnable(twin)
    assert not any(p.requires_grad for p in net.parameters())


def test_bare():
    net = network()
    assert unwrap(nn.DataParallel(net)) is net
    assert unwrap(torch.compile(net, backend="eager")) is net
    assert unwrap(net) is net
