"""What a run folder says of its run, from outside."""

from __future__ import annotations

import json
import os
import time

import pytest

from monai_transfer.cli import main
from monai_transfer.errors import InputError
from monai_transfer.runs.lock import FolderLock
from monai_transfer.runs.record import epochs_kept, find_runs, mark, read_status, state_of, what_is_kept

ROWS = "epoch,split,loss,val_mae\n1,training,3,\n1,validation,,4.5\n2,training,2,\n2,validation,,4.0\n"


def run(folder, status="running", **more):
    (folder / "models").mkdir(parents=True)
    content = {"status": status, "workflow": "train", "arm": "fine_tuned", "seed": 0, "selected_by": "val_mae"}
    (folder / "run.json").write_text(json.dumps({**content, "higher_is_better": False, **more}))
    (folder / "config.yaml").write_text("lr: 1\nmax_epochs: 5\n")
    (folder / "metrics.csv").write_text(ROWS)
    return folder


def keep(folder, newer=True):
    path = folder / "models" / "last.pt"
    path.touch()
    stamp = (folder / "metrics.csv").stat().st_mtime + (1 if newer else -1)
    os.utime(path, (stamp, stamp))


def test_running_is_what_somebody_writes(tmp_path):
    folder = run(tmp_path / "a")
    assert read_status(folder) == "interrupted"
    with FolderLock(folder):
        assert read_status(folder) == "running"
    mark(folder, "failed", "killed")
    assert read_status(folder) == "failed" and state_of(folder).reason == "killed"
    mark(folder, "interrupted")  # only what was running is
    assert read_status(folder) == "failed" and read_status(tmp_path) is None


def test_epochs_that_are_kept(tmp_path):
    folder = run(tmp_path / "a")
    assert epochs_kept(folder) == 0 and what_is_kept(folder).startswith("no epoch was finished")
    keep(folder, newer=False)  # killed between the row and the checkpoint
    assert epochs_kept(folder) == 1
    keep(folder)
    assert what_is_kept(folder) == "epoch 2 of 5 is kept; the same command continues from there"
    (folder / "config.yaml").write_text("max_epochs: 2\n")
    assert what_is_kept(folder) == "all 2 epochs are kept; the same command goes on with the test"
    assert what_is_kept(tmp_path / "none").startswith("nothing was written yet")


def test_the_list_has_status_best_score_epochs_and_age(tmp_path, capsys):
    home = tmp_path / "bundle" / "runs"
    keep(run(home / "train-0", "finished"))
    keep(run(home / "study" / "scratch-1", "failed", reason="out of memory"))
    old = time.time() - 7200
    for path in (home / "train-0").iterdir():
        os.utime(path, (old, old))
    assert [state.best for state in find_runs(home)] == [4.0, 4.0]
    with pytest.raises(SystemExit) as stop:
        main(["runs", str(tmp_path / "bundle")])
    assert not stop.value.code
    failed, finished = capsys.readouterr().out.splitlines()
    assert failed.startswith(f"{home / 'study' / 'scratch-1'}  failed  epoch 2/5  val_mae 4  ")
    assert failed.endswith("out of memory") and "  finished  " in finished and "2 h ago" in finished
    with pytest.raises(SystemExit):
        main(["runs", str(tmp_path / "bundle"), "--json"])
    assert json.loads(capsys.readouterr().out)[1]["status"] == "finished"


def test_no_run_and_a_broken_record(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["runs", str(tmp_path)])
    assert stop.value.code == 2 and "holds no run" in capsys.readouterr().err
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InputError, match=r"run\.json: not a readable run record"):
        list(find_runs(tmp_path))
