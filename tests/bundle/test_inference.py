"""Bundles predict as they are read: the packaged ones and those of `new` need no trust, and give what MONAI gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from monai_transfer.bundle.export import export_bundle
from monai_transfer.bundle.inference import open_inference
from monai_transfer.bundle.known_code import foreign_code
from monai_transfer.bundle.new import new_bundle
from monai_transfer.errors import InputError
from monai_transfer.predict.images import predict_images
from monai_transfer.weights.hashes import changed_files

PACKAGED = sorted(path.parents[1] for path in (Path(__file__).parents[2] / "bundles").glob("*/configs/inference.yaml"))


@pytest.mark.parametrize("bundle", PACKAGED, ids=lambda path: path.name)
def test_packaged_bundles_need_no_trust(bundle):
    assert open_inference(bundle).trust is None
    assert foreign_code(bundle) == []


@pytest.mark.parametrize("task", ["segmentation", "classification", "regression", "localization"])
def test_bundles_that_new_writes_need_no_trust(task, tiny_set, tmp_path):
    bundle = tmp_path / task
    new_bundle(bundle, tiny_set(task, 3), size="small", target_site="north", source_site="south")
    assert open_inference(bundle).trust is None
    assert foreign_code(bundle) == []


def test_predictions_are_those_of_the_config_itself(packaged, tmp_path):
    bundle = packaged / "head_mr_segmentation"
    images = sorted((bundle / "sample").rglob("*.nii.gz"))[:1]
    ours = predict_images(bundle, images, tmp_path / "ours").written[0]
    flow = ConfigWorkflow(
        workflow_type="infer",
        config_file=str(bundle / "configs" / "inference.yaml"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        bundle_root=str(bundle),
        output_dir=str(tmp_path / "theirs"),
        **{"dataset#data": [{"image": str(images[0])}]},
    )
    flow.initialize()
    flow.run()
    (theirs,) = (tmp_path / "theirs").rglob("*.nii.gz")
    assert np.array_equal(nibabel.load(ours).get_fdata(), nibabel.load(theirs).get_fdata())


def test_flipped_weights_are_neither_used_nor_shipped(packaged, tmp_path):
    bundle = Path(shutil.copytree(packaged / "head_mr_segmentation", tmp_path / "head_segmentation"))
    weights = bundle / "models" / "model.pt"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 255
    weights.write_bytes(bytes(data))
    image = next((bundle / "sample").rglob("*.nii.gz"))
    with pytest.raises(InputError, match="damaged"):
        predict_images(bundle, [image], tmp_path / "out")
    for kind in ("bundle", "torchscript"):
        with pytest.raises(InputError, match="damaged"):
            export_bundle(bundle, kind, tmp_path / "out")


def test_an_export_carries_hashes_and_no_code_of_others(packaged, tmp_path):
    """A bundle of another's with code in parts that are not needed: what was read is written anew."""
    bundle = Path(shutil.copytree(packaged / "head_mr_segmentation", tmp_path / "head_segmentation"))
    config = bundle / "configs" / "inference.yaml"
    config.write_text(config.read_text() + f"extra: $open({str(tmp_path / 'canary')!r}, 'w')\n")
    (bundle / "scripts" / "theirs.py").write_text("print()")
    (bundle / "sample" / "link").symlink_to("/etc/passwd")
    made = export_bundle(bundle, "bundle", tmp_path / "made")
    text = (made / "configs" / "inference.yaml").read_text()
    assert "canary" not in text and not (made / "scripts").exists() and not (made / "sample" / "link").exists()
    assert changed_files(made) == []
    image = sorted((bundle / "sample").rglob("*.nii.gz"))[0]
    flow = ConfigWorkflow(
        workflow_type="infer",
        config_file=str(made / "configs" / "inference.yaml"),
        logging_file=False,
        bundle_root=str(made),
        output_dir=str(tmp_path / "theirs"),
    )
    flow.initialize()
    flow.run()
    theirs = sorted((tmp_path / "theirs").rglob("*.nii.gz"))[0]
    ours = predict_images(bundle, [image], tmp_path / "ours").written[0]
    assert np.array_equal(nibabel.load(ours).get_fdata(), nibabel.load(theirs).get_fdata())
    assert not (tmp_path / "canary").exists()


def test_code_that_is_needed_asks_once(packaged, tmp_path):
    bundle = Path(shutil.copytree(packaged / "head_mr_segmentation", tmp_path / "head_segmentation"))
    config = bundle / "configs" / "inference.yaml"
    step = {"_target_": "monai.transforms.Lambdad", "keys": ["image"], "func": "$lambda x: x.clone()"}
    lines = config.read_text().splitlines()
    row = next(n for n, line in enumerate(lines) if "EnsureTyped" in line)
    lines.insert(row + 1, f"  - {json.dumps(step)}")
    config.write_text("\n".join(lines) + "\n")
    image = next((bundle / "sample").rglob("*.nii.gz"))
    with pytest.raises(InputError, match="--trust-source"):
        predict_images(bundle, [image], tmp_path / "a")
    with pytest.raises(InputError, match="--trust-source"):
        export_bundle(bundle, "torchscript", tmp_path / "a.ts")
    assert predict_images(bundle, [image], tmp_path / "b", trust_source=True).written
    assert predict_images(bundle, [image], tmp_path / "c").written, "remembered"
