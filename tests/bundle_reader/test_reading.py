"""A whole bundle read: what it is, what could not be read, and that nothing of it ran."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from monai_transfer.bundle_reader import as_config, build, read_bundle
from monai_transfer.errors import InputError

CONFIG = {
    "imports": ["$import os; os.system('touch canary')", "$import glob"],
    "bundle_root": ".",
    "image_key": "image",
    "pixdim": "$[1.5, 1.5, 2.0] if @high else [3.0, 3.0, 3.0]",
    "high": True,
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
    "network_def": {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [4, 8],
        "strides": [2],
    },
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "@image_key", "reader": "NibabelReader"},
            {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
            {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "@image_key", "pixdim": "@pixdim", "mode": "bilinear"},
            {"_target_": "ScaleIntensityRanged", "keys": "@image_key", "a_min": -57, "a_max": 164}
            | {"b_min": 0, "b_max": 1, "clip": True},
            {"_target_": "EnsureTyped", "keys": "@image_key", "device": "@device"},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 8], "overlap": 0.5, "progress": True}
    | {"sw_device": "@device"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "@image_key"},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x[1:]"},
            {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: open('canary', 'w')"},
            {"_target_": "SaveImaged", "keys": "pred", "output_postfix": "seg", "output_dir": "/etc"},
        ],
    },
    "initialize": ["$os.system('touch canary')"],
}
METADATA = {
    "name": "spleen",
    "network_data_format": {
        "inputs": {"image": {"modality": "CT", "num_channels": 1, "spatial_shape": [16, 16, 8]}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "spleen"}}},
    },
}


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "theirs"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(CONFIG))
    (folder / "configs" / "train.json").write_text(json.dumps({"loss": {"_target_": "DiceCELoss", "softmax": True}}))
    (folder / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    (folder / "LICENSE").write_text("Apache License, Version 2.0")
    return folder


def test_what_a_bundle_says(bundle, tmp_path):
    found = read_bundle(bundle)
    assert as_config(found.network)["channels"] == [4, 8]
    assert (found.spacing, found.orientation, found.window) == ([1.5, 1.5, 2.0], "RAS", (-57.0, 164.0))
    assert (found.roi_size, found.inferer.arguments["overlap"], found.activation) == ([16, 16, 8], 0.5, "softmax")
    assert (found.labels, found.modality, found.licence, found.dims) == (
        ["background", "spleen"],
        "CT",
        "Apache-2.0",
        3,
    )
    assert (found.loss.name, found.loading.reader) == ("DiceCELoss", "NibabelReader")
    assert [(item.where, item.part) for item in found.unread] == [
        ("postprocessing::transforms::4::func", "postprocessing")
    ]
    function = build(found.postprocessing[-1])
    assert torch.equal(function({"pred": torch.arange(3.0)})["pred"], torch.arange(3.0)[1:])
    assert found.saving.arguments["output_postfix"] == "seg" and "output_dir" not in found.saving.arguments
    assert not (tmp_path / "canary").exists()


def test_preprocessing_equals_what_monai_makes_of_the_config(bundle, tmp_path):
    image = np.random.default_rng(0).normal(50, 60, (20, 24, 12)).astype(np.float32)
    affine = np.diag([-2.0, -1.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / "case.nii.gz")
    item = {"image": str(tmp_path / "case.nii.gz")}
    parser = ConfigParser({key: CONFIG[key] for key in ("image_key", "pixdim", "high", "device", "preprocessing")})
    theirs = parser.get_parsed_content("preprocessing")(item)["image"]
    for checked in (True, False):
        ours = read_bundle(bundle).build_preprocessing(checked=checked)(item)["image"]
        assert torch.equal(ours.as_tensor(), theirs.as_tensor())


def test_what_cannot_be_read_is_named(bundle):
    config = CONFIG | {"network_def": {"_target_": "scripts.net.Net"}, "inferer": "$scripts.inferer()"}
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    found = read_bundle(bundle)
    assert found.network is None and found.inferer is None
    for make, word in ((found.build_network, "scripts.net.Net"), (found.build_inferer, "calls scripts.inferer")):
        with pytest.raises(InputError, match="--trust-source") as error:
            make()
        assert word in str(error.value)


def test_what_a_training_does_to_its_labels_is_no_part_of_it(bundle):
    """As the run of a bundle with findings or ignored values: it encodes labels by a class that is not read here."""
    steps = CONFIG["preprocessing"]["transforms"]
    encode = {"_target_": "monai_transfer.data.labels.EncodeLabelsd", "keys": "label", "mapping": {}}
    for keys, unread in (("label", 0), (["label"], 0), (["image", "label"], 1), ("@image_key", 1), ("$which()", 1)):
        changed = {"_target_": "Compose", "transforms": [*steps[:2], encode | {"keys": keys}, *steps[2:]]}
        (bundle / "configs" / "inference.json").write_text(json.dumps(CONFIG | {"preprocessing": changed}))
        found = read_bundle(bundle)
        assert len([item for item in found.unread if item.part == "preprocessing"]) == unread, keys
        assert (found.spacing, len(found.preprocessing)) == ([1.5, 1.5, 2.0], len(steps))


def test_no_bundle(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_bundle(tmp_path / "nowhere")
