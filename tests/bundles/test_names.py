"""Names and folders with characters that mean something to MONAI go through a bundle's life unchanged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from monai.bundle import ConfigWorkflow

from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import equal_command, run_workflow
from monai_transfer.inspection.suitability import read_source

pytestmark = pytest.mark.filterwarnings("ignore")
SHORT = {"max_epochs": 1, "steps_per_epoch": 1, "val_interval": 1}
CLASSES = ("$import os", "@a", "#2 %::x")
SITES = {"north": "%north", "south": "$south #1"}


@pytest.fixture
def odd(tiny_set, tmp_path) -> Path:
    """A set whose folder, manifest, classes and sites have such names."""
    data = tiny_set("classification", 2)
    folder = Path(shutil.copytree(data.parent, tmp_path / "study #1 @home 100%::x"))
    content = json.loads((folder / data.name).read_text())
    old = content["labels"]
    content["labels"] = dict(zip(sorted(old), CLASSES, strict=False))
    content["channel_names"] = {"0": "$T1"}
    for split in ("training", "validation", "test", "unlabeled"):
        for item in content.get(split, []):
            item["site"] = SITES[item["site"]]
            if isinstance(item.get("label"), str):
                item["label"] = content["labels"][next(k for k, v in old.items() if v == item["label"])]
    path = folder / "important #2.json"
    path.write_text(json.dumps(content))
    (folder / data.name).unlink()
    return path


def test_odd_names_train_and_come_back(odd, tmp_path, monkeypatch):
    bundle = tmp_path / "classification #3 @x"
    sites = {"source_site": SITES["north"], "target_site": SITES["south"]}
    spec = new_bundle(bundle, odd, size="small", batch_size=2, **sites)
    names = list(CLASSES[: len(spec.labels)])
    assert spec.class_names == names
    run = run_workflow(bundle, "pretrain", SHORT, log=False)
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished" and record["target_site"] == SITES["north"]
    assert list(record["labels"].values()) == names
    tuned = run_workflow(bundle, "train", SHORT, log=False)
    assert json.loads((tuned / "run.json").read_text())["target_site"] == SITES["south"]
    assert tuned == bundle / "runs" / "train-0"
    for place in (bundle, run):  # raw readers and MONAI see the same
        source = read_source(place)
        assert source.labels == names and source.channel_names == ["$T1"]
    config = bundle / "configs" / "inference.yaml"
    flow = ConfigWorkflow(workflow_type="infer", config_file=str(config), logging_file=False)
    flow.initialize()
    defined = flow.parser.get_parsed_content("_meta_::network_data_format::outputs::pred::channel_def")
    assert list(defined.values()) == names
    assert flow.check_properties() == []
    second = tmp_path / "second"
    assert new_bundle(second, odd, source=tuned, size="small", batch_size=2, **sites).source_classes == names
    assert yaml.safe_load((second / "configs" / "train.yaml").read_text())["source_site"] == "$'\\x25north'"


def test_an_override_with_such_a_name_is_data(odd, tmp_path):
    bundle = tmp_path / "classification"
    sites = {"source_site": SITES["north"], "target_site": SITES["south"]}
    new_bundle(bundle, odd, size="small", batch_size=2, **sites)
    output = tmp_path / "run #7"
    run = run_workflow(bundle, "pretrain", {**SHORT, "output_dir": str(output)}, log=False)
    assert run == output and (output / "run.json").is_file()
    assert "--output_dir" in equal_command(bundle, "pretrain", {"output_dir": str(output)})
    assert "x237" in equal_command(bundle, "pretrain", {"output_dir": str(output)})
