"""From a manifest in which a case lacks a channel to a prediction on an image that lacks one."""

from __future__ import annotations

import json
import shutil

import nibabel
import numpy as np
import pytest
import yaml

from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import open_workflow, run_workflow
from monai_transfer.errors import InputError
from monai_transfer.predict.images import predict_images

pytestmark = pytest.mark.filterwarnings("ignore")


def write_set(folder):
    """Volumes of two channels; the third training case has no second one."""
    rng = np.random.default_rng(0)
    splits: dict[str, list] = {"training": [], "validation": [], "test": []}
    for i in range(7):
        mask = np.zeros((24, 20, 12), dtype=np.uint8)
        mask[8:16, 6:14, 3:9] = 1
        for c in range(2):
            image = (rng.normal(50, 5, mask.shape) + 60 * (c + 1) * mask).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), folder / f"c{i}_000{c}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), folder / f"c{i}.nii.gz")
        item = {"image": [f"c{i}_0000.nii.gz", f"c{i}_0001.nii.gz"], "label": f"c{i}.nii.gz", "case": f"c{i}"}
        item |= {"patient": f"p{i}", "site": "s"}
        if i in (2, 6):
            item |= {"image": [f"c{i}_0000.nii.gz"] * 2, "missing": [1]}
        splits["training" if i < 4 else "validation" if i < 5 else "test"].append(item)
    content = {"name": "x", "task": "segmentation", "labels": {"0": "background", "1": "lesion"}, **splits}
    content["channel_names"] = {"0": "T1", "1": "T2"}
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder / "manifest.json"


def test_from_manifest_to_prediction(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    manifest = write_set(data)
    bundle = tmp_path / "tumour_segmentation"
    short = {"pretrain_epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "val_interval": 1}
    spec = new_bundle(bundle, manifest, size="small", **short)
    assert spec.channel_dropout == 0.25 and "2 of 7 cases lack a channel" in spec.recipe["channel_dropout"]["reason"]
    flow = open_workflow(bundle, "pretrain", {}, log=False)
    flow.initialize()
    seen = {item["case"]: item for item in flow.parser.get_parsed_content("test#dataset")}
    assert not seen["c6"]["image"][1].any() and seen["c5"]["image"][1].any(), "the stand-in is zeros"
    drawn = [flow.parser.get_parsed_content("train#dataset")[0] for _ in range(20)]
    gone = [tuple(item["present"].tolist()) for item in drawn]
    assert {(True, True), (False, True)} <= set(gone), "left out at random"
    assert all(bool(item["image"][c].any()) == p[c] for item, p in zip(drawn, gone, strict=True) for c in range(2))
    flow.finalize()
    run = run_workflow(bundle, "pretrain", {}, log=False)
    alone, pair = tmp_path / "alone", tmp_path / "pair"
    for folder, copies in ((alone, [("c6_0000", "c6_0000")]), (pair, [("c6_0000", "c6_0000"), ("c6_0000", "c6_0001")])):
        folder.mkdir()
        for source, target in copies:
            shutil.copy(data / f"{source}.nii.gz", folder / f"{target}.nii.gz")
    (lacking,) = predict_images(bundle, [alone], tmp_path / "out", run=run).written
    assert nibabel.load(lacking).shape == (24, 20, 12)
    assert len(predict_images(bundle, [manifest], tmp_path / "cases", run=run, split="test").written) == 2
    same = nibabel.load(tmp_path / "cases" / "c6_pred.nii.gz").get_fdata()
    assert np.array_equal(same, nibabel.load(lacking).get_fdata()), "by its files or by the manifest"
    plain = tmp_path / "plain_segmentation"
    left = new_bundle(plain, manifest, size="small", missing_channels="leave-out", **short)
    assert left.channel_dropout == 0 and "left out" in left.recipe["missing_channels"]["value"]
    text = yaml.safe_load((plain / "configs" / "train.yaml").read_text())
    assert text["lists"]["missing_channels"] == "leave-out"
    with pytest.raises(InputError, match="has the channels _0000, and the model takes 2"):
        predict_images(plain, [alone], tmp_path / "no", run=run)
    refused = predict_images(plain, [manifest], tmp_path / "some", run=run, split="test")
    assert "lacks channel 1 (T2), and the model never did without one" in str(refused.faults[0])
