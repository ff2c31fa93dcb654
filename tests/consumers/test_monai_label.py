"""MONAI Label's own tasks on packaged bundles: inference, training, and inference again with the new weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

pytest.importorskip("monailabel", reason="MONAI Label is not installed: make test-consumers")

from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.train.bundle import BundleTrainTask

from monai_transfer.data.phantom import embedded_set
from monai_transfer.manifest import Manifest

pytestmark = pytest.mark.filterwarnings("ignore")


class Datastore:
    """The one call that Label's training makes of its datastore."""

    def __init__(self, cases) -> None:
        self.cases = cases

    def datalist(self):
        return [{"image": str(case.images[0]), "label": str(case.label)} for case in self.cases]


def cases(split: str):
    manifest = Manifest.load(Path(embedded_set("segmentation")) / "manifest.json")
    return manifest.cases(split, site="site_b")


def infer(bundle: Path, image: Path) -> np.ndarray:
    task = BundleInferTask(str(bundle), conf={})
    assert task.is_valid()
    result, _ = task({"image": str(image), "device": "cpu", "result_extension": ".nii.gz", "result_dtype": "uint8"})
    return np.asarray(nibabel.load(result).dataobj)


@pytest.mark.parametrize("bundle", ["head_mr_segmentation"], indirect=True)
def test_training_reaches_the_next_inference(bundle):
    image = Path(cases("test")[0].images[0])
    before = infer(bundle, image)
    assert before.any()
    weights = bundle / "models" / "model.pt"
    old = {name: tensor.clone() for name, tensor in torch.load(weights, weights_only=True).items()}
    task = BundleTrainTask(str(bundle), conf={})
    assert task.is_valid()
    request = {"model": bundle.name, "device": "cpu", "max_epochs": 1, "val_split": 0.25, "pretrained": True}
    config = task.bundle_config
    config["steps_per_epoch"] = 3
    config["publish"] = True  # what docs/consumers.md tells: Label reads models/model.pt
    from monai.bundle import ConfigParser

    ConfigParser.export_config_file(config.config, task.bundle_config_path, fmt="yaml")
    BundleTrainTask(str(bundle), conf={})(request, Datastore(cases("training")[:4]))
    new = torch.load(weights, weights_only=True)
    assert any(not torch.equal(old[name], new[name]) for name in old)
    assert [path.name for path in (bundle / "models").glob("model*.pt")] != ["model.pt"], "the old file is kept"
    after = infer(bundle, image)
    assert after.shape == before.shape and (after != before).any()


@pytest.mark.parametrize("bundle", ["head_mr_slice_classification", "head_mr_volume_regression"], indirect=True)
def test_the_others_are_read(bundle):
    task = BundleInferTask(str(bundle), conf={})
    assert task.is_valid() and task.info()["version"]


@pytest.mark.parametrize("bundle", ["head_mr_lesion_localization"], indirect=True)
def test_localization_gives_an_image(bundle):
    shutil.rmtree(bundle / "runs", ignore_errors=True)
    manifest = Manifest.load(Path(embedded_set("localization")) / "manifest.json")
    out = infer(bundle, Path(manifest.cases("test", site="site_a")[0].images[0]))
    assert out.ndim == 3
