"""Every benchmark script runs at its smallest size; what it measures is not judged here.

In this process: a dozen that each load MONAI anew take a minute more.
"""

from __future__ import annotations

import logging
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


SLOW = (
    "weak_localization.py",
    "prediction.py",
    "large_sets.py",
    "auto_rules.py",
    "kept_classes.py",
    "measured_transfers.py",
    "recipe_arms.py",
    "truth_table.py",
)
OTHERS = (
    "zoo_bundles.py",  # it reads a checkout of the model zoo, which nobody has by default
    "nnunet_rival.py",  # it runs in an environment with nnunetv2
    "nnunet_models.py",  # likewise
    "auto3dseg_rival.py",  # it runs MONAI's recipes, which are not in MONAI's package
    "nnunet_predict.py",  # it compares with what nnU-Net's own command writes
)
SCRIPTS = [
    pytest.param(path, id=path.name, marks=pytest.mark.slow if path.name in SLOW else ())
    for path in sorted(FOLDER.glob("[!_]*.py"))
    if path.name not in OTHERS
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_runs(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(script), "--quick"])
    monkeypatch.syspath_prepend(str(FOLDER))  # as Python does for a script
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as stop:
        assert not stop.code, stop.code
    finally:
        logging.disable(logging.NOTSET)  # some scripts silence logging for their process, which is ours here
    assert ": " in capsys.readouterr().out
