"""Every workflow of both packaged bundles, by plain MONAI and by ``monai-transfer run``, and what it leaves behind."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from monai_transfer.bundle.run import equal_command, run_workflow
from monai_transfer.bundle.spec import WORKFLOWS
from monai_transfer.data.phantom.sets import TASKS
from monai_transfer.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")
TRAINING = ("pretrain", "train", "adapt")
TINY = {"max_epochs": 2, "steps_per_epoch": 2, "val_interval": 1}


@pytest.fixture(scope="session")
def small_sets(embedded_set_of_two) -> dict[str, Path]:
    """The embedded sets, two patients per site and split."""
    return {task: embedded_set_of_two(task) for task in TASKS}


@pytest.fixture
def data(task, small_sets) -> dict[str, object]:
    """Overrides: the small set of the bundle's task."""
    return {"dataset_dir": str(small_sets[task]), "n_labelled": 2}


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "models" / "model.pt", weights_only=True)


def same(a: Path, b: Path) -> bool:
    one, two = weights_of(a), weights_of(b)
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def assert_complete(run: Path, workflow: str) -> None:
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished" and record["workflow"] == workflow and record["ended"]
    for key in ("versions", "seed", "command", "config_sha256", "manifest_sha256", "machine", "started"):
        assert record[key] is not None, key
    assert yaml.safe_load((run / "config.yaml").read_text())["workflow"] == workflow
    assert (run / "weights.json").is_file() == (workflow != "pretrain")
    rows = list(csv.DictReader((run / "cases.csv").open()))
    assert rows and all(row["case"] and row["patient"] and row["site"] for row in rows)
    assert {row["site"] for row in rows} == {"site_a" if workflow == "pretrain" else "site_b"}
    assert list((run / "figures").glob("*.png"))
    if workflow in TRAINING:
        assert (run / "models" / "model.pt").is_file() and (run / "models" / "last.pt").is_file()
        splits = [(row["epoch"], row["split"]) for row in csv.DictReader((run / "metrics.csv").open())]
        assert [pair for pair in splits if pair[1] == "training"] == [("1", "training"), ("2", "training")]
    else:
        assert not (run / "models").exists()


@pytest.mark.parametrize("workflow", [*TRAINING, "evaluate"])
def test_workflow_leaves_a_complete_run_folder(bundle, data, workflow):
    before = (bundle / "models" / "model.pt").read_bytes()
    given = {key: value for key, value in data.items() if key != "n_labelled" or workflow == "train"}
    run = run_workflow(bundle, workflow, {**given, **(TINY if workflow in TRAINING else {})}, log=False)
    assert run == bundle / "runs" / f"{workflow}-0"
    assert_complete(run, workflow)
    assert (bundle / "models" / "model.pt").read_bytes() == before, "training never overwrites the bundle's weights"
    if workflow == "adapt":
        metrics = list(csv.DictReader((run / "metrics.csv").open()))
        assert any("adapt" in name for name in metrics[0]), "the method's term is logged"
    with pytest.raises(InputError, match="finished run.*--fresh"):
        run_workflow(bundle, workflow, {**given, **TINY} if workflow in TRAINING else given, log=False)


@pytest.mark.parametrize("bundle", ["head_mr_slice_classification"], indirect=True)
def test_plain_monai_the_printed_command_and_config_yaml_do_the_same(bundle, data, python, tmp_path):
    overrides = {**TINY, **data, "pretrained": None}
    run = run_workflow(bundle, "train", overrides, log=False)
    kept = run.rename(tmp_path / "kept")
    # the printed line, from another folder
    words = shlex.split(equal_command(bundle, "train", overrides))
    assert words[:4] == ["python", "-m", "monai.bundle", "run"]
    python(*words[1:], cwd=tmp_path)
    assert_complete_without_weights(run)
    assert same(run, kept)
    # in the bundle's own folder, as its header says
    shorter = [
        word for key, value in {**TINY, **data, "pretrained": "none"}.items() for word in (f"--{key}", str(value))
    ]
    python(
        "-m", "monai.bundle", "run", "--config_file", "configs/train.yaml", *shorter, "--output_dir", "own", cwd=bundle
    )
    assert same(bundle / "own", kept)
    # config.yaml alone
    again = ["--config_file", str(kept / "config.yaml"), "--output_dir", str(tmp_path / "again")]
    python("-m", "monai.bundle", "run", *again, cwd=tmp_path)
    assert same(tmp_path / "again", kept)


def assert_complete_without_weights(run: Path) -> None:
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert not (run / "weights.json").exists(), "from scratch nothing is loaded"


@pytest.mark.parametrize("workflow", [w for w in WORKFLOWS if w not in ("train", "contrastive")])
@pytest.mark.slow
def test_plain_monai_runs_every_workflow_from_the_bundles_folder(bundle, data, workflow, python):
    files = "[" + ",".join(f"'configs/{name}.yaml'" for name in WORKFLOWS[workflow]) + "]"
    words = ["-m", "monai.bundle", "run", "--config_file", files]
    if workflow in TRAINING:
        words += [word for key, value in TINY.items() for word in (f"--{key}", str(value))]
    if workflow != "infer":
        words += ["--dataset_dir", str(data["dataset_dir"])]
    python(*words, cwd=bundle)
    if workflow != "infer":
        assert_complete(bundle / "runs" / f"{workflow}-0", workflow)


@pytest.mark.parametrize("workflow", ["adapt", pytest.param("train", marks=pytest.mark.slow)])
@pytest.mark.parametrize("bundle", ["head_mr_slice_classification"], indirect=True)
def test_a_killed_run_continues_to_the_same_weights(bundle, data, workflow, tmp_path):
    overrides = {**TINY, "dataset_dir": data["dataset_dir"], "max_epochs": 5, "steps_per_epoch": 3}
    if workflow == "train":
        overrides["n_labelled"] = 2
    whole = run_workflow(bundle, workflow, {**overrides, "output_dir": str(tmp_path / "whole")}, log=False)
    part = tmp_path / "part"
    words = [sys.executable, "-m", "monai_transfer", "run", str(bundle), workflow]
    words += [word for key, value in overrides.items() for word in (f"--{key}", str(value))] + [
        "--output_dir",
        str(part),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not _epochs(part) >= 2:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 2 <= _epochs(part) < 5, "killed in the middle"
    assert json.loads((part / "run.json").read_text())["status"] == "running"
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((part / "run.json").read_text())
    assert record["status"] == "finished" and len(record["resumed"]) == 1
    assert same(part, whole)
    assert (part / "cases.csv").read_text() == (whole / "cases.csv").read_text()
    columns = [[row["epoch"], row["split"], row["loss"]] for row in csv.DictReader((part / "metrics.csv").open())]
    assert columns == [[r["epoch"], r["split"], r["loss"]] for r in csv.DictReader((whole / "metrics.csv").open())]
    # a finished run is refused in one line
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "finished run" in done.stderr and str(part) in done.stderr


def _epochs(run: Path) -> int:
    try:
        return len([row for row in csv.DictReader((run / "metrics.csv").open()) if row["split"] == "training"])
    except OSError:
        return 0
