"""What is a method's own learns at rates that are its own: SGD's rate is no rate for Adam."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_transfer import MethodStep
from monai_transfer.methods import Adda, CoTraining, Cps, Dann


def after_one_step(method, optimizer_of, loss=True):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = optimizer_of(net.parameters())
    step = MethodStep(method, net, [torch.randn(6, 4)], optimizer=optimizer, epochs=1, epoch_length=2)
    for _ in range(2):
        x, y = torch.randn(6, 4), torch.tensor([0, 1] * 3)
        logits = net(x)
        total = step(x, y, logits, loss=nn.functional.cross_entropy(logits, y))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] /= 2
    return step.own.of_method, optimizer


def sgd(parameters):
    return torch.optim.SGD(parameters, 0.4, momentum=0.9, weight_decay=1e-4)


@pytest.mark.parametrize("method", [Cps, CoTraining, Adda])
@pytest.mark.parametrize("kind", [sgd, lambda p: torch.optim.AdamW(p, 1e-3)])
def test_a_peer_learns_as_the_network_does(method, kind):
    own, network = after_one_step(method(), kind)
    assert type(own) is type(network)
    assert own.param_groups[0]["weight_decay"] == network.param_groups[0]["weight_decay"]
    assert own.param_groups[0]["lr"] == pytest.approx(2 * network.param_groups[0]["lr"]), "halved after the last step"
    assert len(own.state) == sum(len(group["params"]) for group in own.param_groups) > 0


@pytest.mark.parametrize(
    ("method", "lr"), [(Adda(hidden=4, lr=1e-3), 1e-3), (Dann(hidden=4), 1e-3), (Cps(lr=2e-3), 2e-3)]
)
def test_an_adam_of_its_own_keeps_its_rate(method, lr):
    own, _ = after_one_step(method, sgd)
    assert type(own) is torch.optim.Adam
    assert own.param_groups[0]["lr"] == lr
