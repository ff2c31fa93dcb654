"""What the original packages computed (``originals/``), for the tests that compare with it."""

from __future__ import annotations

import json
import math
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

HERE = Path(__file__).parent / "originals"
MAKE = runpy.run_path(str(HERE / "make.py"))


class Original:
    """Names, shapes and outputs of a network as its own package builds it, and the state dict that gave the outputs."""

    def __init__(self, name: str) -> None:
        known = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
        state = {key: MAKE["fill"](key, tuple(shape)) for key, shape in known["tensors"].items()}
        self.state: dict[str, Tensor] = state | {key: state[first] for key, first in known["same"].items()}
        size = tuple(known["input"])
        self.image: Tensor = MAKE["fill"]("input", size) * math.sqrt(math.prod(size[1:]) / 3)
        self.outputs: list[dict] = known["outputs"]

    def check(self, output: Tensor, number: int = 0) -> None:
        """An output must be the original's, at 48 places."""
        assert list(output.shape) == self.outputs[number]["shape"]
        values = torch.tensor(self.outputs[number]["values"])
        assert values.std() > 1e-3 and values.isfinite().all()  # an output that says nothing would prove nothing
        slack = 2e-5 * float(values.abs().max()) + 1e-6
        torch.testing.assert_close(torch.tensor(MAKE["picked"](output)), values, rtol=1e-3, atol=slack)


@pytest.fixture
def original() -> Callable[[str], Original]:
    """``original("timm_vit")``: see ``Original``."""
    return Original
