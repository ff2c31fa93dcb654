"""Every benchmark script runs at its smallest size; what it measures is not judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


SLOW = ("weak_localization.py", "prediction.py")
OTHERS = ("zoo_bundles.py",)  # it reads a checkout of the model zoo, which nobody has by default
SCRIPTS = [
    pytest.param(path, id=path.name, marks=pytest.mark.slow if path.name in SLOW else ())
    for path in sorted(FOLDER.glob("[!_]*.py"))
    if path.name not in OTHERS
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_runs(script):
    done = subprocess.run([sys.executable, script, "--quick"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ": " in done.stdout
