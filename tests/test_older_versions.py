"""What version 0.1 wrote still opens: a manifest, a bundle (run and asked for predictions) and a run folder."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from monai_transfer.bundle.run import run_workflow
from monai_transfer.data.phantom import embedded_set
from monai_transfer.manifest import Manifest
from monai_transfer.predict.images import predict_images
from monai_transfer.report.run import Run

OLD = Path(__file__).parent / "fixtures" / "version_0_1"


@pytest.fixture
def bundle(tmp_path) -> Path:
    return Path(shutil.copytree(OLD / "bundle", tmp_path / "old_classification"))


def test_a_manifest():
    manifest = Manifest.load(OLD / "manifest.json")
    assert manifest.task == "classification" and manifest.sites == ["site_a", "site_b"]
    assert len(manifest.cases("test")) > 10


def test_a_bundle_evaluates(bundle, tmp_path):
    manifest = Path(embedded_set("classification")) / "manifest.json"
    weights = {"ckpt": str(OLD / "run" / "models" / "model.pt"), "pretrained": "none"}
    overrides = {"manifest": str(manifest), "output_dir": str(tmp_path / "run"), **weights}
    with pytest.warns(DeprecationWarning, match="is now monai_transfer"):  # of classes at their old places
        run = Run.load(run_workflow(bundle, "evaluate", overrides))
    assert {row["site"] for row in run.cases} == {"site_b"}


def test_a_bundle_predicts(bundle, tmp_path):
    manifest = Manifest.load(Path(embedded_set("classification")) / "manifest.json")
    image = Path(manifest.cases("test", site="site_b")[0].images[0])
    level = logging.getLogger("ignite").level
    done = predict_images(bundle, [image], tmp_path / "out", run=OLD / "run")
    assert not done.faults and done.written
    assert logging.getLogger("ignite").level == level, "the user's own engines are heard after it"


def test_a_run_folder():
    run = Run.load(OLD / "run")
    assert run.record["seed"] == 0 and len(run.cases) == len(Run.load(OLD / "run").cases) > 10
