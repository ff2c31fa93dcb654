"""One arm per method with its control, and the table of them: it runs, continues, and notes what failed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from monai_transfer.bundle.new import new_bundle
from monai_transfer.study.method_arms import find_method_arms

pytestmark = pytest.mark.filterwarnings("ignore")
PACKAGE = Path(__file__).parents[2] / "monai_transfer"


def load_benchmark():
    spec = importlib.util.spec_from_file_location("truth_table", PACKAGE.parent / "benchmarks" / "truth_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bundle(tiny_set, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trials") / "tiny_segmentation"
    sites = {"source_site": "north", "target_site": "south", "n_labelled": 2}
    new_bundle(folder, tiny_set("segmentation", 2), size="small", batch_size=2, **sites, pretrain_epochs=1)
    return folder


def test_every_method_has_a_trial_with_its_control(packaged):
    for name in ("head_mr_segmentation", "head_mr_slice_classification"):
        trials = {t.name: t for t in find_method_arms(packaged / name)}
        for path in [*(PACKAGE / "methods").glob("*.py"), *(PACKAGE / "testtime").glob("*.py")]:
            if path.stem not in ("__init__", "__main__", "base", "capabilities", "table"):
                assert path.stem in trials, f"{path.stem} has no trial"
        for trial in trials.values():
            assert all(control in trials for control in trial.controls)
    assert trials["advent"].refused == "not for classification"
    assert trials["coral"].controls == ("target_statistics",)
    assert trials["l2_sp"].controls == ("fine_tuned", "scratch"), "it asks for no target image: a way of fine-tuning"
    assert trials["l2_sp"].arm.overrides["regulariser"]["_target_"].endswith("L2Sp")


@pytest.mark.slow
def test_two_methods_run_continue_and_are_written(bundle, tmp_path, capsys):
    main = load_benchmark().main
    page = tmp_path / "page.md"
    words = [str(bundle), "--out", str(tmp_path / "cells"), "--steps", "4", "--jobs", "1", "--write", str(page)]
    assert main([*words, "--methods", "coral,adabn", "--seeds", "1"]) == 0
    assert "| mmd | no target labels |  |  |  |  | not run |" in page.read_text()
    before = (tmp_path / "cells" / "coral-0" / "run.json").read_bytes()
    # a cell that fails is noted with its reason, costs only itself, and does not touch the finished ones
    capsys.readouterr()
    assert main([*words, "--methods", "coral,gradual_self_training", "--seeds", "2"]) == 0
    assert (tmp_path / "cells" / "coral-0" / "run.json").read_bytes() == before
    text = page.read_text()
    row = next(line for line in text.splitlines() if line.startswith("| coral |"))
    assert "2 seeds only" in row
    assert "| no verdict |" in row
    failed = next(line for line in text.splitlines() if line.startswith("| gradual_self_training |"))
    assert "failed (seed 0, 1): " in failed
    assert "acquired" in failed
    cell = json.loads((tmp_path / "cells" / "cells" / "coral-1.json").read_text())
    assert (cell["status"], cell["steps"]) == ("finished", 4)
    assert 0 <= cell["metrics"]["dice"] <= 1
    steps = {json.loads(p.read_text())["steps"] for p in (tmp_path / "cells").glob("coral-*/run.json")}
    oracle = json.loads((tmp_path / "cells" / "oracle-0" / "run.json").read_text())
    assert steps == {oracle["steps"]} == {4}, "equal budgets"
    assert oracle["labelled_train"] == 4
    capsys.readouterr()
    assert main([*words, "--methods", "corall"]) == 2
    assert "no method 'corall'" in capsys.readouterr().err
