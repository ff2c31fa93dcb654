"""Overrides, the equal command and the choice of weights: what ``run`` reads and what it refuses."""

from __future__ import annotations

import logging
import shlex
import shutil
from pathlib import Path

import pytest
from fire.parser import DefaultParseValue

from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import (
    best_weights,
    config_files,
    equal_command,
    open_workflow,
    parse_overrides,
    run_workflow,
)
from monai_transfer.errors import InputError, first_cause
from monai_transfer.manifest import Manifest

pytestmark = pytest.mark.filterwarnings("ignore")


def test_overrides_are_read_as_monai_reads_them():
    words = [
        "--lr",
        "1e-3",
        "--target_site=no",
        "--n_labelled",
        "null",
        "--fresh",
        "True",
        "--train#trainer#max_epochs",
    ]
    words += ["3", "--device", "$torch.device('cpu')", "--selector", "none", "--patch", "[8,8]", "--file", "a/b.json"]
    assert parse_overrides(words) == {
        "lr": 0.001,  # YAML 1.1 would make a string of it
        "target_site": "no",  # and false of this one
        "n_labelled": None,
        "fresh": True,
        "train#trainer#max_epochs": 3,
        "device": "$torch.device('cpu')",
        "selector": None,
        "patch": [8, 8],
        "file": "a/b.json",
    }


@pytest.mark.parametrize("words", [["lr", "1"], ["--lr"], ["--", "1"]])
def test_malformed_overrides(words):
    with pytest.raises(InputError, match="--key value"):
        parse_overrides(words)


def test_equal_command_survives_the_shell_and_fire(packaged):
    values = {"n_labelled": None, "fresh": True, "lr": 0.5, "source_site": "007", "target_site": "a b", "max_epochs": 2}
    words = shlex.split(equal_command(packaged / "head_mr_segmentation", "adapt", values))
    read = {key[2:]: DefaultParseValue(value) for key, value in zip(words[4::2], words[5::2], strict=True)}
    files = [str(packaged / "head_mr_segmentation" / "configs" / f"{name}.yaml") for name in ("train", "adapt")]
    assert read["config_file"] == files == config_files(packaged / "head_mr_segmentation", "adapt")
    for key, value in values.items():
        assert read[key] == ("$None" if value is None else value)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("max_epoch", "did you mean max_epochs"),
        ("train#trainer#max_epochz", None),  # an argument of a component: passed on, its own business
        ("train#trainr#max_epochs", "did you mean trainer"),
        ("train#handlers#99#seed", "a list of"),
        ("zzz", "ids here are"),
    ],
)
def test_mistyped_ids_are_refused(packaged, key, message):
    if message is None:
        open_workflow(packaged / "head_mr_segmentation", "train", {key: 1}, log=False)
        return
    with pytest.raises(InputError, match=message):
        open_workflow(packaged / "head_mr_segmentation", "train", {key: 1}, log=False)


@pytest.fixture
def heard(monkeypatch, caplog):
    """Loggers as at the start: a bundle's logging disables those that it does not name, `predict` quietens ignite."""
    caplog.set_level(logging.WARNING, "ignite")
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            monkeypatch.setattr(logger, "disabled", False)


@pytest.mark.usefixtures("heard")
def test_weights_that_are_not_there_are_told_once(tiny_set, tmp_path, caplog):
    bundle = tmp_path / "mine_classification"
    new_bundle(bundle, tiny_set("classification", 2), target_site="south", size="small")
    with pytest.raises(Exception) as raised:  # noqa: PT011  # MONAI wraps it; the command shows its first cause
        run_workflow(bundle, "train", {}, log=False)
    assert "weights to start from are not there" in str(first_cause(raised.value))
    assert "weights to start from are not there" not in caplog.text
    flow = open_workflow(bundle, "train", {}, log=False)
    flow.initialize()
    flow.parser.get_parsed_content("prepared")  # as MONAI Label does, which calls no `run`
    assert caplog.text.count("weights to start from are not there") == 1


@pytest.mark.usefixtures("heard")
def test_a_file_that_breaks_off_a_training_is_told_once(tiny_set, tmp_path, caplog):
    bundle, shared = tmp_path / "mine_classification", tiny_set("classification", 2)
    data = Path(shutil.copytree(shared.parent, tmp_path / "data")) / shared.name  # one of its files is broken here
    new_bundle(bundle, data, target_site="south", size="small", epochs=1, steps_per_epoch=1)
    case = Manifest.load(data).cases("test", site="south")[0]
    Path(case.images[0]).write_bytes(b"broken")
    with pytest.raises(Exception) as raised:  # noqa: PT011
        run_workflow(bundle, "train", {"pretrained": None}, log=False)
    assert case.images[0] in str(first_cause(raised.value))
    assert "terminating" not in caplog.text, caplog.text
    logging.getLogger("ignite.engine").error("Engine run is terminating due to exception: another")
    assert "another" in caplog.text  # nothing is hidden afterwards


def test_not_a_bundle_and_no_workflow(packaged, tmp_path):
    with pytest.raises(InputError, match="not a MONAI bundle"):
        config_files(tmp_path, "train")
    with pytest.raises(InputError, match="no workflow 'trian'"):
        config_files(packaged / "head_mr_segmentation", "trian")


def test_best_weights_by_folder_and_by_name(packaged, tmp_path):
    assert best_weights(packaged / "head_mr_segmentation").name == "model.pt"
    made = tmp_path / "runs" / "train-0" / "models"
    made.mkdir(parents=True)
    with pytest.raises(InputError, match="no weights here; name a run that has trained"):
        best_weights(tmp_path, "train-0")
    (made / "model.pt").write_bytes(b"x")
    assert (
        best_weights(tmp_path, "train-0") == best_weights(tmp_path, tmp_path / "runs" / "train-0") == made / "model.pt"
    )
