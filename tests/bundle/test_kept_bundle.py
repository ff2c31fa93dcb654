"""A bundle made from a MONAI bundle does to images what its source does: the untouched source predicts the same."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.networks.nets import UNet
from scipy import ndimage

from monai_transfer.bundle.kept_bundle import kept_from_bundle
from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.bundle_reader import read_bundle
from monai_transfer.errors import InputError
from monai_transfer.predict.images import predict_images
from tests.bundle.planning.test_colour import pictures

LABELS = {"0": "background", "1": "spleen"}
SPLEEN = {  # in the manner of the model zoo's spleen_ct_segmentation, references and all
    "imports": ["$import glob", "$import os"],
    "bundle_root": ".",
    "output_dir": "$@bundle_root + '/eval'",
    "dataset_dir": "/nowhere",
    "datalist": "$list(sorted(glob.glob(@dataset_dir + '/*_image.nii.gz')))",
    "pixdim": [3.0, 3.0, 4.0],
    "device": "$torch.device('cpu')",
    "network_def": {
        "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8, 8],
        "strides": [2, 2], "num_res_units": 1, "norm": "batch",
    },
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "LAS", "labels": None},
            {"_target_": "Spacingd", "keys": "image", "pixdim": "@pixdim", "mode": "bilinear"},
            {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1,
             "clip": True},
            {"_target_": "EnsureTyped", "keys": "image"},
        ],
    },
    "dataset": {
        "_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing",
    },
    "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 8], "sw_batch_size": 2, "overlap": 0.5},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image",
             "nearest_interp": False, "to_tensor": True},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "separate_folder": False},
        ],
    },
    "handlers": [
        {"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/model.pt'",
         "load_dict": {"model": "@network"}},
    ],
    "evaluator": {
        "_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@dataloader",
        "network": "@network", "inferer": "@inferer", "postprocessing": "@postprocessing", "val_handlers": "@handlers",
    },
    "initialize": [],
    "run": ["$@evaluator.run()"],
}  # fmt: skip


def write_source(folder: Path, config: dict) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    torch.manual_seed(3)
    network = UNet(3, 1, 2, (4, 8, 8), (2, 2), num_res_units=1, norm="batch").train()
    with torch.no_grad():
        network(torch.rand(4, 1, 16, 16, 8))
        scores = network.eval()(0.44 + 0.1 * torch.rand(4, 1, 16, 16, 8))  # soft tissue in the source's window
        middle = (scores[:, 1] - scores[:, 0]).median()
        network.state_dict()["model.2.1.conv.unit0.conv.bias"][1] -= middle  # both classes occur
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    image = {"type": "image", "modality": "CT", "num_channels": 1, "channel_def": {"0": "image"}}
    pred = {"type": "image", "num_channels": 2, "channel_def": LABELS}
    metadata = {"name": "spleen", "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def source(tmp_path) -> Path:
    return write_source(tmp_path / "spleen_ct", SPLEEN)


@pytest.fixture
def data(tmp_path) -> Path:
    """CT in Hounsfield units: air, soft tissue, an organ."""
    folder, items = tmp_path / "data", []
    folder.mkdir()
    draw = np.random.default_rng(0)
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    for number in range(4):
        label = np.zeros((36, 30, 20), np.uint8)
        label[12:24, 10:20, 6:14] = 1
        image = 40 + 60 * ndimage.gaussian_filter(draw.standard_normal(label.shape), 1) + 70 * label
        image[:3] = -1000
        for name, values in (("image", image.astype(np.float32)), ("label", label)):
            nib.save(nib.Nifti1Image(values, affine), folder / f"c{number}_{name}.nii.gz")
        items.append(
            {"image": f"c{number}_image.nii.gz", "label": f"c{number}_label.nii.gz", "case": f"c{number}",
             "patient": f"p{number}", "site": "a"}
        )  # fmt: skip
    made = {"name": "ct", "task": "segmentation", "modality": "CT", "labels": LABELS, "training": items[:2],
            "validation": items[2:3], "test": items[3:]}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(made))
    return folder


def predictions(bundle: Path, config: str, data: Path, out: Path, **more) -> list[np.ndarray]:
    flow = ConfigWorkflow(
        str(bundle / "configs" / config), meta_file=str(bundle / "configs" / "metadata.json"), logging_file=False,
        bundle_root=str(bundle), dataset_dir=str(data), output_dir=str(out), **more,
    )  # fmt: skip
    flow.initialize()
    flow.run()
    flow.finalize()
    return [np.asarray(nib.load(path).dataobj) for path in sorted(out.glob("*.nii.gz"))]


def test_the_untouched_source_predicts_as_its_own_bundle(source, data, tmp_path):
    made = tmp_path / "ct_segmentation"
    spec = new_bundle(made, data / "manifest.json", source=source, epochs=1, steps_per_epoch=1, batch_size=2)
    assert spec.patch == [16, 16, 8]
    assert spec.spacing == [3.0, 3.0, 4.0]
    theirs = predictions(source, "inference.json", data, tmp_path / "theirs")
    ours = predictions(made, "inference.yaml", data, tmp_path / "ours", pattern="*_image.nii.gz")
    assert len(ours) == len(theirs) == 4
    assert all(0.01 < (label > 0).mean() < 0.99 for label in theirs)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    note = json.loads((made / "models" / "source.json").read_text())
    assert "ScaleIntensityRanged" in note["preprocessing"]
    assert note["parity"]["apart"] == 0


def test_pictures_are_the_slices_of_a_slice_inferer(tmp_path):
    flat = {**SPLEEN["network_def"], "spatial_dims": 2}
    scaled = {"_target_": "ScaleIntensityd", "keys": "image"}
    steps = {"_target_": "Compose", "transforms": [*SPLEEN["preprocessing"]["transforms"][:2], scaled]}
    slices = {"_target_": "SliceInferer", "roi_size": [16, 24], "spatial_dim": 2}
    config = {**SPLEEN, "network_def": flat, "preprocessing": steps, "inferer": slices}
    found = read_bundle(write_source(tmp_path / "slices", config))
    kept, why = kept_from_bundle(found, dense=True, dims=2)
    assert kept is not None and why == ""
    inferer = ConfigParser({"inferer": kept.inferer_config(alone=True)}).get_parsed_content("inferer")
    seen = []
    made = inferer(torch.zeros(1, 1, 32, 24), lambda window: seen.append(tuple(window.shape[2:])) or window * 2)
    assert made.shape == (1, 1, 32, 24) and set(seen) == {(16, 24)}


def test_images_that_are_inferred_whole_are_padded(data, tmp_path):
    steps = SPLEEN["preprocessing"]["transforms"]
    unresampled = {"_target_": "Compose", "transforms": [*steps[:3], *steps[4:]]}
    config = {**SPLEEN, "inferer": {"_target_": "SimpleInferer"}, "preprocessing": unresampled}
    for path in data.glob("*.nii.gz"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj)[:-1, :-2], image.affine), path)
    bundle = tmp_path / "whole_segmentation"
    source = write_source(tmp_path / "whole", config)
    new_bundle(bundle, data / "manifest.json", source=source, epochs=1, steps_per_epoch=1, batch_size=2)
    assert "multiples of 4" in json.loads((bundle / "models" / "source.json").read_text())["preprocessing"]
    run = run_workflow(bundle, "train", {}, log=False)
    path = data / "c3_image.nii.gz"
    done = predict_images(bundle, [path], tmp_path / "out", run=run)
    assert nib.load(done.written[0]).shape == nib.load(path).shape and nib.load(path).shape[0] % 4


def test_a_source_of_another_kind_of_answer_is_refused(source, tmp_path):
    flat = {**SPLEEN, "network_def": {**SPLEEN["network_def"], "spatial_dims": 2}}
    whole = write_source(tmp_path / "flat", flat)
    fault = "has an answer for every voxel, and the task is classification: one answer for a whole image; name a source"
    with pytest.raises(InputError, match=fault):
        new_bundle(tmp_path / "b", pictures(tmp_path / "data", False), source=whole, target_site="south")


def test_fitted_to_the_data_on_request(source, data, tmp_path):
    spec = new_bundle(tmp_path / "a_segmentation", data / "manifest.json", source=source, preprocessing="data")
    assert spec.kept is None
    assert spec.oriented
    kept = new_bundle(tmp_path / "k_segmentation", data / "manifest.json", source=source)
    planned = new_bundle(tmp_path / "p_segmentation", data / "manifest.json")
    assert spec.spacing == planned.spacing != kept.spacing, "all is fitted to the data, the grid too"
    with pytest.raises(InputError, match="no preprocessing 'theirs'; source or data"):
        new_bundle(tmp_path / "b", data / "manifest.json", source=source, preprocessing="theirs")


def test_arithmetic_is_kept_as_it_is_written(data, tmp_path):
    steps = list(SPLEEN["preprocessing"]["transforms"])
    steps[4] = {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x / 1000"}
    plain = write_source(tmp_path / "plain", {**SPLEEN, "preprocessing": {"_target_": "Compose", "transforms": steps}})
    made = tmp_path / "plain_segmentation"
    new_bundle(made, data / "manifest.json", source=plain)
    text = (made / "configs" / "inference.yaml").read_text()
    assert "$lambda x: x / 1000" in text
    assert "monai_transfer" not in text


def test_what_cannot_be_read_is_said(data, tmp_path, caplog):
    steps = list(SPLEEN["preprocessing"]["transforms"])
    steps[4] = {"_target_": "Lambdad", "keys": "image", "func": "$scripts.their.scale"}
    odd = write_source(tmp_path / "odd", {**SPLEEN, "preprocessing": {"_target_": "Compose", "transforms": steps}})
    spec = new_bundle(tmp_path / "odd_segmentation", data / "manifest.json", source=odd)
    assert spec.kept is None
    note = json.loads((tmp_path / "odd_segmentation" / "models" / "source.json").read_text())
    assert note["preprocessing"].startswith("fitted to the data: its preprocessing cannot be read without running code")
    assert "steps fitted to the data stand in" in caplog.text
