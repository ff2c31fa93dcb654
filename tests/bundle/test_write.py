"""From a spec to files: what is written, what is left alone, and metadata that MONAI and our own check understand."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path

import jsonschema
import pytest
import yaml
from monai.bundle import ConfigParser

from bundles.packaged import packaged_specs
from bundles.packaged_statistics import measured_statistics, packaged_statistics
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.bundle.write import render_bundle, write_bundle
from monai_transfer.inspection.suitability import read_source

SPECS = {spec.name: spec for spec in packaged_specs()}


def spec(**changes) -> BundleSpec:
    values = {
        "name": "brain_segmentation",
        "task": "segmentation",
        "spatial_dims": 3,
        "labels": {0: "background", 1: 'tumour: "high" grade\'s {part}'},
        "channel_names": ["T1", "FLAIR"],
        "network": {
            "_target_": "monai.networks.nets.UNet",
            "spatial_dims": 3,
            "in_channels": 2,
            "out_channels": 2,
            "channels": [4, 8],
            "strides": [2],
        },
        "patch": [16, 16, 16],
        "normalise": [{"_target_": "monai.transforms.NormalizeIntensityd", "keys": ["image"]}],
        "spacing": [1.0, 1.0, 2.0],
        "oriented": True,
        "source_site": "site: a",
        "target_site": "b",
    }
    return BundleSpec(**(values | changes))


def test_every_config_parses_with_names_that_yaml_dislikes():
    files = render_bundle(spec())
    for name, text in files.items():
        if name.endswith(".yaml"):
            assert isinstance(yaml.safe_load(text), dict), name
    assert yaml.safe_load(files["configs/train.yaml"])["source_site"] == "site: a"


def test_inference_knows_monai_alone():
    for name, one in (*SPECS.items(), ("a", spec())):
        files = render_bundle(one)
        assert "monai_transfer" not in files["configs/inference.yaml"], name
        assert "monai_transfer" not in files["scripts/infer.py"], name


def test_what_is_there_is_left_alone(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").write_bytes(b"weights")
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "a.txt").write_text("mine")
    write_bundle(spec(), tmp_path)
    assert (tmp_path / "models" / "model.pt").read_bytes() == b"weights"
    assert (tmp_path / "sample" / "a.txt").read_text() == "mine"
    assert not list(tmp_path.rglob("*.tmp*"))
    first = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write_bundle(spec(), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == first


def test_metadata_name_channels_classes_and_training_data(tmp_path):
    statistics = {"spacing": [1, 1, 2], "intensity": {"p0.5": 0, "p99.5": 9}, "site": "site: a"}
    write_bundle(spec(data_statistics=statistics), tmp_path)
    source = read_source(tmp_path)
    assert source.channel_names == ["T1", "FLAIR"] and source.labels == spec().class_names
    assert (source.task, source.dims, source.channels) == ("segmentation", 3, 2)
    assert source.spacing == [1, 1, 2] and source.orientation == "RAS"
    assert source.statistics == statistics


@pytest.mark.parametrize("name", SPECS)
def test_packaged_metadata_say_what_the_model_saw(name):
    metadata = json.loads(render_bundle(SPECS[name])["configs/metadata.json"])
    statistics = metadata["transfer"]["data_statistics"]
    assert statistics == packaged_statistics(name)
    assert statistics["site"] == SPECS[name].source_site
    assert statistics["dims"] == SPECS[name].spatial_dims
    for key in ("modality", "channels", "intensity", "n_images"):
        assert statistics[key], key


def test_metadata_fit_the_schema():
    data = Path(os.environ.get("MONAI_TRANSFER_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = Path(os.environ.get("MONAI_BUNDLE_SCHEMA", data.parent / "schema" / "meta_schema_20240725.json"))
    if not path.is_file():
        pytest.skip("MONAI's metadata schema is not here: name it in MONAI_BUNDLE_SCHEMA")
    schema = json.loads(path.read_text())
    for one in (*SPECS.values(), spec(data_statistics={"prevalence": {"a": 0.5}})):
        jsonschema.validate(json.loads(render_bundle(one)["configs/metadata.json"]), schema)


def test_masks_of_pictures_are_pictures():
    flat = {"spatial_dims": 2, "patch": [32, 32], "spacing": None, "oriented": False, "rotation_axes": ["x"]}
    for suffix in (".png", ".jpg", ".tif"):
        text = render_bundle(spec(**flat, picture="grey", suffix=suffix, channel_names=["grey"]))[
            "configs/inference.yaml"
        ]
        steps = ConfigParser(yaml.safe_load(text)).config["postprocessing"]["transforms"]
        assert next(s["output_ext"] for s in steps if "SaveImaged" in s["_target_"]) == ".png", suffix


def test_infer_script_groups_channels_and_refuses_equal_names(tmp_path):
    write_bundle(spec(), tmp_path / "bundle")
    script = runpy.run_path(str(tmp_path / "bundle" / "scripts" / "infer.py"))
    for name in ("p1_0000.nii.gz", "p1_0001.nii.gz", "whole.nii.gz"):
        (tmp_path / name).write_bytes(b"x")
    found = script["find_images"]([tmp_path])
    assert found == [str(tmp_path / "whole.nii.gz"), [str(tmp_path / f"p1_000{n}.nii.gz") for n in range(2)]]
    (tmp_path / "p2_0000.nii.gz").write_bytes(b"x")
    with pytest.raises(SystemExit, match="p2: 1 channel files, and the model takes 2"):
        script["find_images"]([tmp_path])
    with pytest.raises(SystemExit, match="written over that of /a/1.2.3; rename one"):
        script["refuse_equal_names"](["/a/1.2.3", "/a/1.2.4"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_kept_statistics_are_what_measuring_gives(name):
    hint = "run `python -m bundles.packaged_statistics`"
    assert measured_statistics(SPECS[name]) == packaged_statistics(name), hint
