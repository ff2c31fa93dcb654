"""What ``config.yaml`` is written from: whoever starts a workflow, with every override, at any depth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_transfer.engine.merged_config import merged_config

CONFIG = {
    "output_dir": "runs/here",
    "lr": 0.1,
    "unused": {"of": [{"nobody": 1}]},
    "network": {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": "@size"},
    "size": "%widths::0",
    "widths": [2, 3],
    "run_folder": {
        "_target_": "monai_transfer.engine.run_folder.RunFolder",
        "output_dir": "@output_dir",
        "info": {"workflow": "train", "arm": "fine_tuned", "seed": 0},
    },
    "run": ["$@run_folder.start()", "$@run_folder.finish()"],
}
GIVEN = {"lr": 0.5, "unused#of#0#nobody": 7, "network::out_features": 4}


class Asks:
    """A component that keeps what it finds."""

    def __init__(self, **_arguments):
        self.found = merged_config()


@pytest.fixture
def file(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(CONFIG))
    return tmp_path / "train.json"


def written(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text())


def assert_as_given(content: dict) -> None:
    assert content["lr"] == 0.5
    assert content["unused"] == {"of": [{"nobody": 7}]}, "an override that no argument refers to"
    assert content["network"] == {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 4}, "not its object"
    assert content["run_folder"]["output_dir"] == "@output_dir", "references stay references"
    assert content["size"] == 2, "macros are copied in, as MONAI does"


def test_a_workflow_in_python(file, tmp_path):
    flow = ConfigWorkflow(str(file), workflow_type=None, logging_file=False, output_dir=str(tmp_path / "run"), **GIVEN)
    flow.initialize()
    flow.run()
    assert_as_given(written(tmp_path / "run"))


def test_what_is_set_between_two_runs_of_one_workflow(file, tmp_path):
    """MONAI Label and NVFlare set properties of a workflow that has run, and initialise it again."""
    flow = ConfigWorkflow(str(file), workflow_type=None, logging_file=False, output_dir=str(tmp_path / "a"))
    for name, lr in (("a", 0.1), ("b", 0.2), ("c", 0.3)):
        flow.parser["output_dir"], flow.parser["lr"] = str(tmp_path / name), lr
        flow.initialize()
        flow.run()
        assert written(tmp_path / name)["lr"] == lr
    sizes = {(tmp_path / name / "config.yaml").stat().st_size for name in "abc"}
    assert len(sizes) == 1, "a config does not grow from run to run"


def test_plain_monai_on_the_command_line(file, tmp_path):
    overrides = [word for key, value in GIVEN.items() for word in (f"--{key}", str(value))]
    subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(file), "--output_dir", "run", *overrides],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    assert_as_given(written(tmp_path / "run"))


def test_the_written_config_repeats_the_run(file, tmp_path):
    for number, source in enumerate((file, tmp_path / "0" / "config.yaml")):
        given = GIVEN if number == 0 else {}
        folder = str(tmp_path / str(number))
        flow = ConfigWorkflow(str(source), workflow_type=None, logging_file=False, output_dir=folder, **given)
        flow.initialize()
        flow.run()
    one, two = (json.loads((tmp_path / n / "run.json").read_text())["config_sha256"] for n in "01")
    assert one == two


def test_the_innermost_parser_and_none_without():
    inner = {"_target_": Asks, "lr": "@lr"}
    parser = ConfigParser({"lr": 1, "outer": "$@make()", "make": lambda: ConfigParser({"lr": 2, "x": inner})})
    asked = parser.get_parsed_content("outer").get_parsed_content("x")
    assert asked.found["lr"] == 2 and asked.found["x"]["lr"] == "@lr"
    assert Asks().found is None


def test_the_found_dictionary_is_ones_own():
    parser = ConfigParser({"lr": 1, "x": {"_target_": Asks}})
    parser.get_parsed_content("x").found["lr"] = 2
    assert parser["lr"] == 1
