"""What a finished run was made of is known, and a run made of something else is not taken for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from monai_transfer.errors import InputError
from monai_transfer.study.jobs import Job, refuse_changed, settings_of
from monai_transfer.study.pool import first_line, refuse_failed


@pytest.fixture
def bundle(tmp_path) -> Path:
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    (tmp_path / "bundle" / "configs" / "train.yaml").write_text("max_epochs: 3\n")
    return tmp_path / "bundle"


def finished(bundle: Path, home: Path, **overrides) -> Job:
    """A job whose run folder says that it ended under these overrides."""
    weights = str(home / "pretrain-0" / "models" / "model.pt")
    job = Job(str(bundle), "train", {"pretrained": weights, "output_dir": str(home / "a-0"), **overrides}, "a")
    job.output.mkdir(parents=True)
    (job.output / "run.json").write_text(json.dumps({"status": "finished", "job": settings_of(job)}))
    return job


def test_the_same_settings_pass_also_after_the_study_was_moved(bundle, tmp_path):
    finished(bundle, tmp_path / "s", seed=0)
    shutil.move(tmp_path / "s", tmp_path / "elsewhere")
    weights = str(tmp_path / "elsewhere" / "pretrain-0" / "models" / "model.pt")
    moved = {"pretrained": weights, "output_dir": str(tmp_path / "elsewhere" / "a-0"), "seed": 0, "fresh": True}
    refuse_changed(Job(str(bundle), "train", moved, "a"))


def test_runs_of_other_settings_or_other_configs_are_refused(bundle, tmp_path):
    job = finished(bundle, tmp_path / "s", seed=0)
    other = Job(job.bundle, job.workflow, {**job.overrides, "lr": 0.1}, "a")
    with pytest.raises(InputError, match=r"a-0: is finished, under other settings: lr \(it was not set, now 0.1\)"):
        refuse_changed(other)
    (bundle / "configs" / "train.yaml").write_text("max_epochs: 4\n")
    with pytest.raises(InputError, match="under other settings: the bundle's configs; give another --out"):
        refuse_changed(job)


def test_a_run_without_a_record_passes(bundle, tmp_path):
    job = finished(bundle, tmp_path / "s")
    (job.output / "run.json").write_text(json.dumps({"status": "finished"}))
    refuse_changed(job)


def test_failed_runs_are_named(bundle, tmp_path):
    refuse_failed({})
    one, two = (Job(str(bundle), "train", {"output_dir": str(tmp_path / name)}, name) for name in ("a-0", "b-0"))
    with pytest.raises(InputError, match="the run 'a-0' failed: no memory .and 1 more: b-0."):
        refuse_failed({one: RuntimeError("no memory\nat all"), two: RuntimeError()})
    assert first_line(RuntimeError()) == "RuntimeError"


def test_a_reference_is_the_same_in_both_of_its_spellings(bundle, tmp_path):
    job = finished(bundle, tmp_path / "s", **{"train#handlers": [{"evaluator": "@validate#evaluator"}]})
    own = {**job.overrides, "train::handlers": [{"evaluator": "@validate::evaluator"}]}
    del own["train#handlers"]
    refuse_changed(Job(job.bundle, job.workflow, own, "a"))
    own["train::handlers"] = [{"evaluator": "@validate#network"}]
    with pytest.raises(InputError, match="under other settings: train#handlers .it was .*evaluator.*now .*network"):
        refuse_changed(Job(job.bundle, job.workflow, own, "a"))
