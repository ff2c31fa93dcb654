"""A group of processes: the backend follows the device, not what the machine has."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

from monai_transfer.engine import processes


@pytest.fixture
def alone(monkeypatch, unused_tcp_port_factory=None):
    for key, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(key, value)
    yield
    processes.stop()


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_a_process_joins_wraps_and_leaves(alone, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a GPU that is not asked for
    processes.start(device)
    assert dist.get_backend() == "gloo"
    wrapped = processes.distributed(nn.Linear(2, 1), device)
    wrapped(torch.ones(1, 2)).sum().backward()
    assert wrapped.module.weight.grad.tolist() == [[1.0, 1.0]]
    processes.stop()
    assert not dist.is_initialized()
    processes.stop()  # twice does no harm


def test_each_process_has_its_own_gpu(monkeypatch):
    assert processes.local_device() == torch.device(
        "cuda" if torch.cuda.is_available() else "cpu", *([0] if torch.cuda.is_available() else [])
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert processes.local_device() == torch.device("cuda", 3)
