"""The real MONAI Label and MONAI Deploy, in an environment of their own: ``make test-consumers``.

Elsewhere these tests skip. ``stubs/`` holds stand-ins for what has no build without CUDA 13: Holoscan, the graph engine
around Deploy's operators, and torchvision, with which Label draws previews. The operator and the tasks are real.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bundle(tmp_path, request) -> Path:
    """A copy of a packaged bundle; its name by ``indirect`` parametrization."""
    source = ROOT / "bundles" / request.param
    return Path(
        shutil.copytree(source, tmp_path / request.param, ignore=shutil.ignore_patterns("runs", "predictions", "__py*"))
    )
