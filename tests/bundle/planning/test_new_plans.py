"""``new`` plans: every number has its reason in the bundle, and what was planned trains and comes back to the image."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from PIL import Image

from monai_transfer.bundle.new import NewOptions, new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest

pytestmark = pytest.mark.filterwarnings("ignore")
SHORT = {"max_epochs": 2, "steps_per_epoch": 1, "val_interval": 2}
SITES = {"source_site": "north", "target_site": "south"}
SPLITS = (("training", 3), ("validation", 2), ("test", 1))


def config(bundle: Path, name: str = "train") -> dict:
    return yaml.safe_load((bundle / "configs" / f"{name}.yaml").read_text())


def write(folder: Path, task: str, modality: str, make, labels: dict, suffix: str, **more) -> Path:
    content: dict = {"name": "planned", "task": task, "modality": modality, "labels": labels, **more}
    rng = np.random.default_rng(0)
    for site in ("north", "south"):
        for split, count in SPLITS:
            for number in range(count):
                case = f"{site}_{split}_{number}"
                item = {"case": case, "patient": case, "site": site, "image": f"{case}{suffix}"}
                item["label"] = make(rng, folder / item["image"], folder / f"{case}_mask{suffix}")
                content.setdefault(split, []).append(item)
    Manifest.from_dict(content, folder).save(folder / "manifest.json")
    return folder / "manifest.json"


def thick_ct(rng, image: Path, mask: Path) -> str:
    """Air around, soft tissue of 60 HU (spread 10) in the middle; 24 x 24 voxels of 0.8 mm in 8 slices of 4 mm."""
    label = np.zeros((24, 24, 8), np.uint8)
    label[6:18, 6:18, 2:6] = 1
    array = np.where(label, rng.normal(60, 10, label.shape), -1000).astype(np.float32)
    for path, content in ((image, array), (mask, label)):
        nibabel.save(nibabel.Nifti1Image(content, np.diag([0.8, 0.8, 4, 1])), path)
    return mask.name


def picture(rng, image: Path, mask: Path) -> str:
    """Pictures of unlike size with a bright square."""
    side = int(rng.choice([40, 60]))
    label = np.zeros((side, side + 10), np.uint8)
    label[side // 4 : side // 2, side // 4 : side // 2] = 1
    Image.fromarray((label * 120 + rng.integers(0, 60, label.shape)).astype(np.uint8)).save(image)
    Image.fromarray(label).save(mask)
    return mask.name


def test_thick_ct(tmp_path):
    data = write(tmp_path, "segmentation", "CT", thick_ct, {"0": "background", "1": "organ"}, ".nii.gz")
    bundle = tmp_path / "organ_segmentation"
    spec = new_bundle(bundle, data, NewOptions(size="small", **SITES), budget=40)
    recipe = json.loads((bundle / "configs" / "recipe.json").read_text())
    assert recipe == spec.recipe and all(entry["reason"] for entry in recipe.values())
    assert set(recipe) >= {
        "spacing",
        "patch",
        "batch_size",
        "network",
        "strides",
        "crops",
        "normalise",
        "steps",
        "select",
    }
    low, high = recipe["normalise"]["value"]
    assert 25 < low < 40 and 80 < high < 95, "the foreground's, not the air's"
    assert spec.network["_target_"] == "monai.networks.nets.DynUNet" and spec.spacing == [0.8, 0.8, 4.0]
    assert spec.network["kernel_size"][0] == [3, 3, 1] and spec.layer == "bottleneck"
    assert config(bundle)["selector"] is None and "2 validation patients" in recipe["select"]["reason"]
    assert config(bundle)["lr_scheduler"]["_target_"] == "monai_transfer.engine.learning_rate.warm_up_cosine"
    assert config(bundle)["loss"]["_target_"].endswith("HeadsLoss") and config(bundle)["loss"]["dims"] == 3
    for workflow in ("pretrain", "train", "adapt"):
        run = run_workflow(bundle, workflow, SHORT, log=False)
        record = json.loads((run / "run.json").read_text())
        assert (record["status"], record["selected_by"]) == ("finished", "last epoch")
    run_workflow(bundle, "infer", {"ckpt": str(run / "models" / "model.pt"), "dataset_dir": str(tmp_path)}, log=False)
    assert list((bundle / "predictions").rglob("*_pred.nii.gz"))


@pytest.mark.parametrize("options", [{"resize": [32, 32]}, {"spacing": [2, 2]}, {}])
def test_pictures_on_a_common_scale(tmp_path, options):
    data = write(tmp_path, "segmentation", "microscopy", picture, {"0": "background", "1": "cell"}, ".png")
    bundle = tmp_path / "cell_segmentation"
    spec = new_bundle(bundle, data, size="small", **SITES, **options)
    assert (spec.image_size, spec.spacing) == (options.get("resize"), options.get("spacing"))
    if not options:
        return
    run_workflow(bundle, "pretrain", SHORT, log=False)
    weights = {"ckpt": str(bundle / "runs" / "pretrain-0" / "models" / "model.pt"), "dataset_dir": str(tmp_path)}
    run_workflow(bundle, "infer", {**weights, "pattern": "south_test_0.png"}, log=False)
    (mask,) = (bundle / "predictions").rglob("*.png")
    assert Image.open(mask).size == Image.open(tmp_path / "south_test_0.png").size, "back on the picture's own pixels"


def test_resize_is_for_pictures(tmp_path):
    data = write(tmp_path, "segmentation", "CT", thick_ct, {"0": "background", "1": "organ"}, ".nii.gz")
    with pytest.raises(InputError, match="--resize is for pictures"):
        new_bundle(tmp_path / "b", data, resize=[8, 8, 8], **SITES)


def test_unlike_classes_are_weighed(tmp_path):
    def unlike(rng, image: Path, mask: Path) -> int:
        Image.fromarray(rng.integers(0, 99, (32, 32)).astype(np.uint8)).save(image)
        return int(image.stem.endswith("training_0"))

    data = write(tmp_path, "classification", "X-ray", unlike, {"0": "no", "1": "yes"}, ".png")
    bundle = tmp_path / "finding_classification"
    spec = new_bundle(bundle, data, size="small", **SITES)
    assert spec.class_weights == [0.75, 1.5], "2 and 4 of 6 cases; mean 1 over them"
    run = run_workflow(bundle, "pretrain", {**SHORT, "device": "cpu"}, log=False)
    assert json.loads((run / "run.json").read_text())["status"] == "finished"


@pytest.mark.parametrize(
    ("names", "options", "axes"),
    [
        (("background", "organ"), {}, [0]),
        (("background", "left organ"), {}, []),
        (("background", "organ"), {"flip": False}, []),
    ],
)
def test_mirroring_where_sides_and_the_user_allow_it(tmp_path, names, options, axes):
    data = write(tmp_path, "segmentation", "CT", thick_ct, {str(n): name for n, name in enumerate(names)}, ".nii.gz")
    spec = new_bundle(tmp_path / "b", data, size="small", **SITES, **options)
    assert spec.flips == axes and spec.recipe["mirror"]["reason"]
    assert config(tmp_path / "b")["mirror"] == axes
