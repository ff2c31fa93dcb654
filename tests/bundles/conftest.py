"""The packaged bundles, copied, so that a test's runs leave nothing behind in the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_sets import copied

BUNDLES = Path(__file__).parents[2] / "bundles"
# those that carry a model from site to site; pretraining without labels has other workflows, and tests of its own
NAMES = sorted(path.name for path in BUNDLES.iterdir() if (path / "configs" / "adapt.yaml").is_file())
TINY = {"max_epochs": 1, "steps_per_epoch": 2}


@pytest.fixture(params=NAMES)
def bundle(request, tmp_path) -> Path:
    """A copy of one packaged bundle."""
    return copied(request.param, tmp_path)


@pytest.fixture
def task(bundle) -> str:
    """What the bundle's metadata say that it is for."""
    return json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))["transfer"]["task"]


@pytest.fixture(params=[name for name in NAMES if "segmentation" in name])
def segmentation(request, tmp_path) -> Path:
    """A copy of the packaged segmentation bundle."""
    return copied(request.param, tmp_path)


@pytest.fixture
def schema() -> Path:
    """MONAI's metadata schema, which the tools would download: from ``MONAI_BUNDLE_SCHEMA`` or beside the real data."""
    data = Path(os.environ.get("MONAI_TRANSFER_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = Path(os.environ.get("MONAI_BUNDLE_SCHEMA", data.parent / "schema" / "meta_schema_20240725.json"))
    if not path.is_file():
        pytest.skip("MONAI's metadata schema is not here (tests do not download): name it in MONAI_BUNDLE_SCHEMA")
    return path


@pytest.fixture
def python():
    """Run ``python ...`` in another process, one thread; fails the test with its output unless ``code`` comes back."""

    def run(*words: str, cwd: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            text=True,
            capture_output=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == code, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    return run
