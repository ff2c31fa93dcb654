"""Every benchmark script runs at its smallest size; what it measures is not judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


SLOW = ("weak_localization.py", "prediction.py")
SCRIPTS = [
    pytest.param(path, id=path.name, marks=pytest.mark.slow if path.name in SLOW else ())
    for path in sorted(FOLDER.glob("[!_]*.py"))
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_runs(script):
    done = subprocess.run([sys.executable, script, "--quick"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ": " in done.stdout
