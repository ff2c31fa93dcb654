"""The real MONAI Label and MONAI Deploy, in an environment of their own: ``make test-consumers``.

Elsewhere these tests skip. ``stubs/`` holds stand-ins for what has no build without CUDA 13: Holoscan, the graph engine
around Deploy's operators, and torchvision, with which Label draws previews. The operator and the tasks are the real ones.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from monai_transfer.data.phantom import embedded_set
from monai_transfer.manifest import Manifest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent / "stubs")) if "holoscan" not in sys.modules else None


@pytest.fixture
def bundle(tmp_path, request) -> Path:
    """A copy of a packaged bundle; its name by ``indirect`` parametrization."""
    source = ROOT / "bundles" / request.param
    return Path(
        shutil.copytree(source, tmp_path / request.param, ignore=shutil.ignore_patterns("runs", "predictions", "__py*"))
    )


@pytest.fixture
def cases(request) -> list:
    """Labelled cases of the embedded set that the bundle is for."""
    manifest = Manifest.load(Path(embedded_set(request.getfixturevalue("task"))) / "manifest.json")
    return manifest.cases("training", site="site_b")[:4]
