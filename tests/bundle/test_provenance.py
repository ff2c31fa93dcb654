"""The licence of the weights goes where they go: into the bundle, its runs, what starts from those, every export."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch
import yaml

from monai_transfer.bundle.export import export_bundle
from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.weights import Source

pytestmark = pytest.mark.filterwarnings("ignore")
SHORT = {"max_epochs": 1, "steps_per_epoch": 2, "val_interval": 1}
OPTIONS = {"source_site": "north", "target_site": "south", "n_labelled": 2, "size": "small"}
LICENCE = "CC BY-NC-SA 4.0"


@pytest.fixture
def restricted(packaged, tmp_path):
    """A packaged bundle as if its weights were under a non-commercial licence."""
    bundle = shutil.copytree(packaged / "head_mr_slice_classification", tmp_path / "restricted")
    (bundle / "LICENSE").write_text("Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International")
    return bundle


def test_a_non_commercial_licence_follows_the_weights(tiny_set, restricted, tmp_path, caplog):
    data = tiny_set("classification", 2)
    bundle = tmp_path / "mine_classification"
    with caplog.at_level(logging.WARNING):
        new_bundle(bundle, data, source=restricted, **OPTIONS)
    assert caplog.text.count(f"NON-COMMERCIAL licence, which binds what you train from them too: {LICENCE}") == 1
    listed = yaml.safe_load((bundle / "large_files.yml").read_text())
    assert [(e["path"], e["licence"]) for e in listed["sources"]] == [
        ("models/source.pt", LICENCE), ("models/model.pt", LICENCE),
    ]  # fmt: skip
    assert listed["sources"][0]["origin_sha256"] == Source.load(restricted).sha256
    assert listed["sources"][0]["hash_val"] == Source.load(bundle / "models" / "source.pt").sha256
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["transfer"]["weights"]["licence"] == LICENCE

    caplog.clear()
    with caplog.at_level(logging.WARNING):
        run = run_workflow(bundle, "train", SHORT, log=False)
    report = json.loads((run / "weights.json").read_text())
    assert report["licence"] == LICENCE and "head_mr_slice_classification" in report["source"]
    assert "NON-COMMERCIAL" in caplog.text

    again = tmp_path / "again_classification"
    new_bundle(again, data, source=run, **OPTIONS)  # what was trained from it
    assert Source.load(again).licence == Source.load(again / "models" / "source.pt").licence == LICENCE

    deployed = export_bundle(bundle, "bundle", tmp_path / "deployed", run=run)
    assert Source.load(deployed).licence == LICENCE and "trained from" in Source.load(deployed).description
    script = export_bundle(bundle, "torchscript", tmp_path / "model.ts", run=run)
    extra = {"metadata.json": ""}
    torch.jit.load(str(script), _extra_files=extra)
    assert json.loads(extra["metadata.json"])["weights_licence"] == LICENCE


def test_in_an_onnx_file(packaged, tmp_path):
    onnx = pytest.importorskip("onnx")
    bundle = shutil.copytree(packaged / "head_mr_slice_classification", tmp_path / "b")
    listing = {"sources": [{"path": "models/model.pt", "licence": LICENCE, "description": "a challenge's weights"}]}
    (bundle / "large_files.yml").write_text(yaml.safe_dump(listing))
    model = onnx.load(str(export_bundle(bundle, "onnx", tmp_path / "model.onnx")))
    notes = {entry.key: entry.value for entry in model.metadata_props}
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert json.loads(notes.pop("data_statistics")) == metadata["transfer"]["data_statistics"]
    assert notes == {"weights_licence": LICENCE, "weights_origin": "a challenge's weights"}
