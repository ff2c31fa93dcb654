"""One arm per method with its control, and the table of them: it runs, continues, and notes what failed."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from monai_transfer.bundle.new import new_bundle
from monai_transfer.errors import InputError
from monai_transfer.study.arms import parse_arms
from monai_transfer.study.method_arms import cost_of, find_method_arms, resolve_arms
from monai_transfer.study.pool import Job
from monai_transfer.study.run_arms import run_study

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


def test_methods_are_arms_of_a_study_by_their_names(bundle, packaged):
    arms = parse_arms("source,coral,adabn,tent,histogram")
    resolved, said = resolve_arms(bundle, arms)
    assert [arm.name for arm in resolved] == ["source", "coral", "adabn", "tent", "histogram"]
    assert resolved[1].overrides["method"]["_target_"] == "monai_transfer.methods.coral.Coral"
    about = {arm.name: arm.overrides.get("run_folder#info", {}).get("about", "") for arm in resolved}
    assert about["adabn"].startswith("adapts the source model without source data")
    assert about["coral"].startswith("adapts with target scans that have no labels")
    assert about["histogram"] == "trains on source images in the target's look"
    assert "coral has to beat target_statistics as well: add it to --arms" in said
    with pytest.raises(InputError, match="advent: not for classification; arms that fit are .*mcc"):
        resolve_arms(packaged / "head_mr_slice_classification", parse_arms("advent"))
    with pytest.raises(InputError, match="no arm 'adabm'; did you mean adabn"):
        parse_arms("adabm")


def test_all_arms_are_those_that_fit_and_their_cost_is_said_first(bundle):
    resolved, said = resolve_arms(bundle, parse_arms("all"))
    names = {arm.name for arm in resolved}
    assert {"source", "oracle", "source_longer", "dann", "l2_sp", "dg_tta", "fourier", "translation"} <= names
    assert "mcc" not in names
    assert any(line.startswith("mcc is left out: not for segmentation") for line in said)
    line = cost_of(bundle, resolved, 5, 2, {"max_epochs": 3, "steps_per_epoch": 4})
    assert line.startswith(f"{len(resolved)} arms: {5 * len(resolved) - 4} runs, ")
    assert " of them of 12 steps; how long that is one finished run would tell" in line
    record = bundle / "runs" / "adapt-0" / "run.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"status": "finished", "workflow": "adapt", "steps": 10, "seconds": 3600}))
    try:
        trained = int(re.search(r"runs, (\d+) of them", line).group(1))
        hours = f"about {trained * 12 / 10:.1f} h of processor time by 1 finished runs here, 2 at a time"
        assert hours in cost_of(bundle, resolved, 5, 2, {"max_epochs": 3, "steps_per_epoch": 4})
    finally:
        shutil.rmtree(record.parents[1])


def test_test_time_arms_run_and_the_report_says_what_they_are(bundle, tmp_path):
    """Per scan: the adapting network is shown each scan before its windows."""
    arms, _ = resolve_arms(bundle, parse_arms("source,adabn,dg_tta"))
    method = {**arms[2].overrides["method"], "steps": 1, "patches": 1, "members": 1}
    arms[2] = replace(arms[2], overrides={**arms[2].overrides, "method": method})
    (report,) = run_study(bundle, tmp_path, arms, seeds=[0], jobs=1, overrides={"max_epochs": 1, "steps_per_epoch": 2})
    text = report.read_text(encoding="utf-8")
    assert "adapts the source model without source data" in text
    assert "adapted to a scan in" in (tmp_path / "dg_tta-0" / "log.txt").read_text(encoding="utf-8")


def test_what_a_table_costs_is_told_from_its_finished_cells(tmp_path):
    cells = tmp_path / "cells"
    cells.mkdir()
    for name, status, seconds in (
        ("dann-0", "finished", 40.0),
        ("coral-0", "finished", 20.0),
        ("mmd-0", "failed", 0.0),
    ):
        (cells / f"{name}.json").write_text(json.dumps({"status": status, "seconds": seconds}))
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"status": status}))
    jobs = [Job("b", "adapt", {"output_dir": str(tmp_path / f"{n}-0")}, n) for n in ("dann", "coral", "mmd", "cdan")]
    told = load_benchmark().cost(tmp_path, jobs)
    assert told == "processor time: 60 s for 2 cells so far; 2 of 4 left, about 60 s"
    assert "not known" in load_benchmark().cost(tmp_path / "empty", jobs)


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
