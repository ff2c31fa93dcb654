"""A network trained on two shifted point clouds, to be adapted without its source."""

from __future__ import annotations

import pytest
import torch
from torch import nn


def _clouds(n, shift, seed):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = 0.4 * torch.randn(n, 2, generator=g) + torch.tensor([[-2.0, 0.8], [2.0, -0.8]])[y]
    order = torch.randperm(n, generator=g)
    return (x + torch.tensor([shift, 0.0]))[order], y[order]


def _trained(norm, smoothing=0.0, seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(2, 32), norm(), nn.ReLU(), nn.Linear(32, 32), norm(), nn.ReLU(), nn.Linear(32, 2)
    )  # fmt: skip
    x, y = _clouds(256, 0.0, 1)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y, label_smoothing=smoothing).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture
def clouds():
    """(n, shift, seed) -> two Gaussian classes, shifted along the axis that tells them apart: N x 2, and N labels."""
    return _clouds


@pytest.fixture
def trained():
    """(norm, smoothing, seed) -> a perceptron with these norm layers, trained on the clouds without shift."""
    return _trained
