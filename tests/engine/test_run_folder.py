"""The run folder's life: start, continue, refuse, move aside, start over; the config found by itself."""

from __future__ import annotations

import json

import pytest
import yaml
from monai.bundle import ConfigParser

from monai_transfer.engine.run_folder import RunFolder, _open_runs, close_open_runs, read_status
from monai_transfer.errors import InputError
from monai_transfer.files import sha256_file
from monai_transfer.runs.ranks import Rank, own

INFO = {"workflow": "train", "arm": "fine_tuned", "seed": 3}


def parsed(folder, **more):
    config = {
        "output_dir": str(folder),
        "lr": 0.1,
        "run_folder": {
            "_target_": "monai_transfer.engine.run_folder.RunFolder", "output_dir": "@output_dir", "info": INFO, **more
        },
    }  # fmt: skip
    return ConfigParser(config).get_parsed_content("run_folder")


def record(folder):
    return json.loads((folder / "run.json").read_text())


def test_life_of_a_run(tmp_path):
    folder = tmp_path / "run"
    assert read_status(folder) is None
    run = parsed(folder)
    assert not folder.exists()  # nothing is written before the run starts
    run.start()
    assert read_status(folder) == "running"
    assert yaml.safe_load((folder / "config.yaml").read_text())["lr"] == 0.1
    started = record(folder)["started"]

    again = parsed(folder)  # the same config in a new process continues
    again.start()
    assert record(folder)["started"] == started and len(record(folder)["resumed"]) == 1
    again.finish()
    content = record(folder)
    assert content["status"] == "finished" and content["arm"] == "fine_tuned" and content["config_sha256"]
    assert content["versions"]["monai"]


def test_another_config_does_not_continue(tmp_path):
    parsed(tmp_path / "run").start()
    other = ConfigParser(
        {"lr": 0.2, "r": {"_target_": "monai_transfer.engine.run_folder.RunFolder", "output_dir": str(tmp_path / "run"),
                          "info": INFO}}
    ).get_parsed_content("r")  # fmt: skip
    with pytest.raises(InputError, match="another configuration.*delete it"):
        other.start()


@pytest.mark.parametrize("what", ["manifest", "pretrained"])
def test_what_has_changed_since_is_said_before_it_is_used(what, tmp_path):
    file, folder = tmp_path / f"{what}.file", tmp_path / "run"
    file.write_text("1")
    parsed(folder, **{what: str(file)}).start()
    close_open_runs(KeyboardInterrupt())
    file.write_text("2")
    with pytest.raises(InputError, match=f"{what}.file: has changed since.*--fresh"):
        parsed(folder, **{what: str(file)}).start()
    file.write_text("1")
    parsed(folder, **{what: str(file)}).start()
    assert len(record(folder)["resumed"]) == 1


def test_a_source_is_one_as_it_came_and_as_it_was_fitted(tmp_path):
    (tmp_path / "models").mkdir()
    files = {name: tmp_path / "models" / name for name in ("source.pt", "model.pt", "trained.pt")}
    for name, file in files.items():
        file.write_text(name)
    digests = {name: sha256_file(file) for name, file in files.items()}
    told = {"sha256": digests["source.pt"], "fitted_sha256": digests["model.pt"], "origin_sha256": "0a"}
    (tmp_path / "models" / "source.json").write_text(json.dumps(told))
    for name, origin in (("source.pt", "0a"), ("model.pt", "0a"), ("trained.pt", None)):
        folder = tmp_path / name.removesuffix(".pt")
        parsed(folder, pretrained=str(files[name])).start()
        assert (record(folder)["source_sha256"], record(folder)["pretrained_sha256"]) == (origin, digests[name])


def test_finished_is_moved_aside_and_fresh_clears(tmp_path):
    folder = tmp_path / "run"
    for _ in range(2):
        run = parsed(folder)
        run.start()
        run.finish()
    assert read_status(tmp_path / "run.1") == "finished"
    (folder / "left.txt").write_text("x")
    parsed(folder, fresh=True).start()
    assert not (folder / "left.txt").exists() and not (tmp_path / "run.2").exists()


def test_further_rounds_in_one_process_go_on(tmp_path):
    run = parsed(tmp_path / "run")
    run.start()
    run.finish()
    run.start()  # a federated round
    assert read_status(tmp_path / "run") == "running" and not (tmp_path / "run.1").exists()


def test_unreadable_record_and_no_parser(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json"):
        read_status(tmp_path)
    bare = RunFolder(tmp_path / "bare", INFO)
    bare.start()
    assert not (tmp_path / "bare" / "config.yaml").exists()


def test_another_ranks_death_is_the_reason(tmp_path):
    dead = Rank(1, own(0).host, 2**22 + 1, 0.0)
    run = parsed(tmp_path / "run")
    run.start()
    run._others = [dead]  # as if it had been in the group
    close_open_runs(RuntimeError("Connection closed by peer"))
    assert read_status(tmp_path / "run") == "failed"
    assert record(tmp_path / "run")["reason"].startswith(f"{dead} ended first: it was killed")


def test_a_rank_that_does_not_write_tells_its_own_error_and_rank_0_keeps_that(tmp_path):
    writer, beside = parsed(tmp_path / "run"), parsed(tmp_path / "run")
    writer.start()
    beside._rank, beside._others = 1, [own(0)]
    _open_runs.append(beside)
    beside.close(InputError("no such file", path="scan.nii.gz"))
    assert record(tmp_path / "run")["reason"] == "rank 1: scan.nii.gz: no such file"
    writer.close(KeyboardInterrupt())  # what torchrun does to it then
    assert record(tmp_path / "run")["status"] == "failed"
    assert record(tmp_path / "run")["reason"] == "rank 1: scan.nii.gz: no such file"


def test_a_rank_that_does_not_write_tells_of_rank_0s_death_but_not_while_it_lives(tmp_path):
    writer = parsed(tmp_path / "run")
    writer.start()
    for lives in (True, False):
        beside = parsed(tmp_path / "run")
        beside._rank, beside._others = 1, [Rank(0, own(0).host, 2**22 + 1, 0.0)]
        if not lives:
            writer._release()  # as the kernel does
        _open_runs.append(beside)
        beside.close(RuntimeError("Connection closed by peer"))
        assert read_status(tmp_path / "run") == ("running" if lives else "failed")
    assert record(tmp_path / "run")["reason"].startswith("rank 0 (process")
