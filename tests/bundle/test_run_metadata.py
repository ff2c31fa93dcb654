"""An export from a run describes the data of that run, whatever the bundle's own weights saw."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from monai_transfer.bundle.export import export_bundle
from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.bundle.run_metadata import run_metadata
from monai_transfer.errors import InputError
from monai_transfer.inspection import compare_with_source, describe_data
from monai_transfer.manifest import Manifest

pytestmark = pytest.mark.filterwarnings("ignore")
PACKAGED = Path(__file__).parents[2] / "bundles"
SHORT = {"max_epochs": 1, "steps_per_epoch": 1, "val_interval": 1}


@pytest.fixture(scope="module")
def made(tiny_set, tmp_path_factory):
    """A bundle that started from a packaged one, on data of which one site is ten times brighter; and a run there."""
    folder = tmp_path_factory.mktemp("export")
    data = shutil.copytree(tiny_set("segmentation", 3).parent, folder / "data")
    for path in sorted((data / "images").glob("south*.nii.gz")):
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(10 * np.asarray(image.dataobj), image.affine), path)
    bundle = folder / "mine_segmentation"
    new_bundle(
        bundle, data / "manifest.json", source=PACKAGED / "head_mr_segmentation", source_site="north",
        target_site="south", size="small", batch_size=1, patch=[16, 16, 8],
    )  # fmt: skip
    return bundle, run_workflow(bundle, "train", SHORT, log=False)


def p50(folder):
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    return metadata["transfer"]["data_statistics"]["intensity"]["p50"]


def test_statistics_of_the_runs_own_site(made, tmp_path):
    bundle, run = made
    whole = export_bundle(bundle, "bundle", tmp_path / "bundle")
    assert json.loads((whole / "configs" / "metadata.json").read_text()) == run_metadata(bundle)
    deployed = export_bundle(bundle, "bundle", tmp_path / "run", run=run.name)
    transfer = json.loads((deployed / "configs" / "metadata.json").read_text())["transfer"]
    statistics = transfer["data_statistics"]
    assert statistics["site"] == "south" == transfer["target_site"]
    assert p50(deployed) > 400 and statistics["other_sites"]["north"]["intensity"]["p50"] < 60
    assert p50(whole) == statistics["other_sites"]["site_a"]["intensity"]["p50"], "the source's stay beside it"
    # who asks whether data suit the model is answered by what this model saw
    manifest = Manifest.load(bundle.parent / "data" / "manifest.json")
    south = replace(describe_data(manifest), intensity=statistics["intensity"])
    assert not [f for f in compare_with_source(south, deployed) if f.code == "source-intensity"]
    script = export_bundle(bundle, "torchscript", tmp_path / "model.ts", run=run)
    extra = {"metadata.json": ""}
    torch.jit.load(str(script), _extra_files=extra)
    assert json.loads(extra["metadata.json"])["transfer"]["data_statistics"] == statistics
    other = run_metadata(bundle, _altered(run, tmp_path / "other", target_site="north", source_site="north"))
    assert other["transfer"]["data_statistics"]["site"] == "north" == other["transfer"]["target_site"]


def _altered(run, folder, **entries):
    shutil.copytree(run, folder)
    record = json.loads((folder / "run.json").read_text()) | entries
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_sites_that_the_metadata_do_not_know_are_looked_at(made, tmp_path, caplog):
    bundle, run = made
    everywhere = run_metadata(bundle, _altered(run, tmp_path / "all", target_site=None))["transfer"]
    assert everywhere["data_statistics"]["n_images"] == 8 and everywhere["target_site"] is None
    assert 60 < everywhere["data_statistics"]["intensity"]["p50"] < 500, "both sites together"
    with caplog.at_level(logging.WARNING):
        changed = _altered(run, tmp_path / "changed", target_site=None, manifest_sha256="0")
        assert run_metadata(bundle, changed)["transfer"]["data_statistics"] == {}
    assert "what" in caplog.text and "was trained on is not known any more" in caplog.text


def test_another_manifest_is_not_the_bundles(made, tmp_path):
    bundle, run = made
    config = (run / "config.yaml").read_text()
    folder = _altered(run, tmp_path / "moved")
    assert "\ndataset_dir: " in config
    (folder / "config.yaml").write_text(config.replace("\ndataset_dir: ", "\ndataset_dir: /nowhere"))
    assert run_metadata(bundle, folder)["transfer"]["data_statistics"] == {}


def test_what_is_no_run_tells_nothing(made, tmp_path):
    bundle, run = made
    (tmp_path / "models").mkdir()
    assert run_metadata(bundle, tmp_path)["transfer"]["data_statistics"] == {}
    (tmp_path / "run.json").write_text("[")
    with pytest.raises(InputError, match="run.json: is not JSON"):
        run_metadata(bundle, tmp_path)
