"""Small adaptation problems, each solved through ``Adapt`` in a stock MONAI trainer."""

from __future__ import annotations

import math

import pytest
import torch
from monai.engines import SupervisedTrainer
from sklearn.datasets import make_moons
from torch import nn

from monai_transfer.engine.adapt import Adapt


class Batches:
    """Random batches of cases held in memory, as dictionaries; ``strong`` makes the strongly augmented view."""

    def __init__(self, images, labels=None, *, length=50, size=64, strong=None, **more):
        self.columns = {"image": images, **({} if labels is None else {"label": labels}), **more}
        self.length, self.size, self.strong = length, min(size, len(images)), strong

    def __len__(self):
        return self.length

    def __iter__(self):
        for _ in range(self.length):
            chosen = torch.randperm(len(self.columns["image"]))[: self.size]
            batch = {key: column[chosen] for key, column in self.columns.items()}
            if self.strong is not None:
                batch["strong"] = self.strong(batch["image"])
            yield batch


def _adapt(method, network, source, target, *, epochs=6, lr=3e-3, loss=None, seed=0, more=None, **options):
    """Train ``network`` on ``source`` batches, with ``method`` where one is given; returns the network in eval mode."""
    torch.manual_seed(seed)
    handlers = [] if method is None else [Adapt(method, target, **options)]
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=source,
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr),
        loss_function=loss or nn.CrossEntropyLoss(),
        decollate=False,
        train_handlers=handlers,
    ).run()
    return network.eval()


def _moons(n, degrees, seed):
    x, y = make_moons(n, noise=0.05, random_state=seed)
    angle = math.radians(degrees)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return torch.tensor(x - [0.5, 0.25], dtype=torch.float32) @ turn.T, torch.tensor(y)


def _clouds(n, shift, seed):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = 0.4 * torch.randn(n, 2, generator=g) + torch.tensor([[-2.0, 0.8], [2.0, -0.8]])[y]
    return x + torch.tensor([shift, 0.0]), y


def _perceptron(inputs=2, classes=2, width=32, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes)
    )


@torch.no_grad()
def _accuracy(network, images, labels):
    return (network(images).argmax(1) == labels).float().mean().item()


@pytest.fixture
def batches():
    return Batches


@pytest.fixture
def adapt():
    return _adapt


@pytest.fixture
def moons():
    """(n, degrees, seed) -> two interleaved half circles, turned: N x 2 points and N labels."""
    return _moons


@pytest.fixture
def clouds():
    """(n, shift, seed) -> two Gaussian classes, shifted along the axis that tells them apart: N x 2, and N labels."""
    return _clouds


@pytest.fixture
def perceptron():
    return _perceptron


@pytest.fixture
def accuracy():
    return _accuracy
