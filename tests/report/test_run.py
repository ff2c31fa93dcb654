"""Reading run folders: what is whole, and one clear line for what is not."""

from __future__ import annotations

import json

import pytest

from monai_transfer.errors import InputError
from monai_transfer.report import Run


@pytest.fixture
def folder(study):
    return study.write({"fine_tuned": 0.7}, seeds=1)[0]


def change(folder, **values):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_finished_run(folder):
    run = Run.load(folder)
    assert (run.arm, run.seed, run.task, run.name) == ("fine_tuned", 0, "segmentation", "fine_tuned-0")
    assert len(run.cases) == 12
    assert run.curves[0]["split"] == "training"
    assert run.weights is not None
    assert run.weights["coverage"] == 0.981


@pytest.mark.parametrize(
    ("record", "arm"),
    [
        ({"workflow": "train", "pretrained": None}, "scratch"),
        ({"workflow": "train"}, "fine_tuned"),
        ({"workflow": "adapt"}, "adapted"),
        ({"workflow": "evaluate"}, "source"),
        ({"arm": "mine"}, "mine"),
    ],
)
def test_the_arm_follows_from_the_workflow(folder, record, arm):
    change(folder, **{"arm": None, **record})
    assert Run.load(folder).arm == arm


@pytest.mark.parametrize(
    ("record", "match"),
    [
        ({"status": "running"}, "not finished"),
        ({"task": "staging"}, "task 'staging'"),
        ({"seed": None}, "seed None"),
    ],
)
def test_records_that_cannot_be_compared(folder, record, match):
    change(folder, **record)
    with pytest.raises(InputError, match=match) as caught:
        Run.load(folder)
    assert str(folder) in str(caught.value)


def test_broken_folders(folder, tmp_path):
    with pytest.raises(InputError, match="not a folder"):
        Run.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no run.json"):
        Run.load(tmp_path)
    cases = folder / "cases.csv"
    whole = cases.read_text()
    cases.write_text(whole.splitlines()[0] + "\n")
    with pytest.raises(InputError, match="holds no case"):
        Run.load(folder)
    cases.write_text(whole + whole.splitlines()[1] + "\n")
    with pytest.raises(InputError, match="case-000 twice"):
        Run.load(folder)
    cases.write_text(whole + "case-099,p1\n")
    with pytest.raises(InputError, match="line 14"):
        Run.load(folder)
    cases.write_text("name,dice\na,1\n")
    with pytest.raises(InputError, match="column 'case'"):
        Run.load(folder)
    cases.unlink()
    with pytest.raises(InputError, match="nothing was tested"):
        Run.load(folder)
    (folder / "run.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        Run.load(folder)


@pytest.mark.parametrize(
    ("record", "labelled", "chosen_on", "steps"),
    [
        ({"workflow": "train", "labelled_train": 3, "labelled_validation": 2, "selected_by": "val_auc"}, 3, 2, 300),
        ({"workflow": "train", "labelled_train": 3, "labelled_validation": 2, "selected_by": "last epoch"}, 3, 0, 300),
        ({"workflow": "adapt", "labelled_train": 50, "labelled_target": 1, "labelled_validation": 2}, 1, 0, 300),
        ({"workflow": "evaluate", "labelled_train": 50}, 0, 0, 0),
    ],
)
def test_the_budget_counts_target_labels_only(folder, record, labelled, chosen_on, steps):
    change(folder, **record)
    run = Run.load(folder)
    assert (run.labelled, run.chosen_on, run.steps) == (labelled, chosen_on, steps)
