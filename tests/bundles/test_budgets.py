"""How long a run trains: by words, by time, prolonged, and ended early only where enough patients judge."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from monai_transfer.bundle.run import run_workflow
from monai_transfer.bundle.timed_budget import budget_overrides, time_steps
from monai_transfer.data.phantom.sets import write_set
from monai_transfer.errors import InputError, first_cause

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.parametrize("bundle", ["head_mr_slice_classification"], indirect=True),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("classification")
    write_set("classification", root, patients=2)
    return str(root)


@pytest.fixture
def given(small) -> dict[str, object]:
    return {"dataset_dir": small, "n_labelled": 2, "steps_per_epoch": 2, "val_interval": 1, "batch_size": 4}


def record(run) -> dict:
    return json.loads((run / "run.json").read_text())


def test_a_finished_run_is_prolonged_and_keeps_what_it_had(bundle, given):
    known = {"asked": "2", "epochs": 1, "steps_per_epoch": 2}
    run = run_workflow(bundle, "train", {**given, "max_epochs": 1, "budget": known}, log=False)
    assert record(run)["budget"] == known
    first = torch.load(run / "models" / "model.pt", weights_only=True)
    with pytest.raises(InputError, match=r"finished run; --max_epochs above 1 prolongs it"):
        run_workflow(bundle, "train", {**given, "max_epochs": 1}, log=False)
    with pytest.raises(InputError, match=r"finished run, of another configuration \(lr\)"):
        run_workflow(bundle, "train", {**given, "max_epochs": 3, "lr": 0.5}, log=False)
    assert run_workflow(bundle, "train", {**given, "max_epochs": 3}, log=False) == run
    told = record(run)
    assert [(p["from_epochs"], p["to_epochs"]) for p in told["prolonged"]] == [(1, 3)]
    assert told["status"] == "finished" and told["steps"] == 6 and not (run.parent / "train-0.1").exists()
    rows = [row for row in csv.DictReader((run / "metrics.csv").open()) if row["split"] == "training"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    kept = torch.load(run / "models" / "model_epoch1.pt", weights_only=True)
    assert all(torch.equal(kept[key], first[key]) for key in first)
    last = torch.load(run / "models" / "last.pt", weights_only=True)["network"]
    assert any(not torch.equal(last[key], first[key]) for key in first), "the added epochs learn"


def test_a_time_becomes_epochs_once(bundle, given):
    timed = time_steps(bundle, "train", given)
    assert 0 < timed.seconds_per_step < 20 and timed.seconds_per_validation > 0
    assert not (bundle / "runs").exists(), "nothing of the timed steps is kept"
    with pytest.raises(InputError, match="holds no epoch"):
        budget_overrides(bundle, "train", "0.001s", given)
    known = {"asked": "2h", "epochs": 2, "steps_per_epoch": 2, "seconds_per_step": 1.0, "seconds_per_validation": 0.0}
    begun = bundle / "runs" / "train-0"
    begun.mkdir(parents=True)
    (begun / "run.json").write_text(json.dumps({"status": "interrupted", "budget": known}))
    found, again = budget_overrides(bundle, "train", "2h", given)  # no second timing for a run that has begun
    assert again == known and found == {"max_epochs": 2, "budget": known}


def test_names_and_steps(bundle, given):
    assert budget_overrides(bundle, "train", "quick", given)[0]["max_epochs"] == 100
    assert budget_overrides(bundle, "pretrain", "quick", given)[0]["max_epochs"] == 200
    assert budget_overrides(bundle, "train", "7", given)[0]["max_epochs"] == 4
    with pytest.raises(InputError, match="same thing"):
        budget_overrides(bundle, "train", "7", {**given, "max_epochs": 2})


def test_early_stopping_wants_patients(bundle, given):
    with pytest.raises(RuntimeError) as refused:
        run_workflow(bundle, "train", {**given, "max_epochs": 1, "patience": 1}, log=False)
    cause = first_cause(refused.value)
    assert isinstance(cause, InputError) and "at least 8 validation patients, and there are 2" in str(cause)
