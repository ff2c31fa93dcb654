"""Devices on which transforms are tried: the CPU, and a GPU where there is one."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(
    params=[
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a CUDA device")),
    ]
)
def device(request) -> torch.device:
    return torch.device(request.param)
