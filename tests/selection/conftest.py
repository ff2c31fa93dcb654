"""Small sets and bundles for ranking: what the label depends on is known."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.networks.nets import DenseNet, UNet
from PIL import Image

from monai_transfer.files import write_json

UNET = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2], "num_res_units": 1}
DENSENET = {
    "spatial_dims": 2, "in_channels": 1, "out_channels": 2,
    "init_features": 8, "growth_rate": 4, "block_config": [2, 2],
}  # fmt: skip


def write_bundle(
    folder: Path, network: str, arguments: dict, transforms: list, inferer: dict, data: Path | None
) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    definition = {"_target_": f"monai.networks.nets.{network}", **arguments}
    content = {
        "bundle_root": ".",
        "network_def": definition,
        "preprocessing": {"_target_": "monai.transforms.Compose", "transforms": transforms},
        "inferer": inferer,
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(content))
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1.0", "name": network}))
    if data is not None:
        train = {"network_def": definition, "manifest": str(data), "source_site": "s"}
        (folder / "configs" / "train.json").write_text(json.dumps(train))
    torch.manual_seed(1)
    state = {"UNet": UNet, "DenseNet": DenseNet}[network](**arguments).state_dict()
    torch.save(state, folder / "models" / "model.pt")
    return folder


def load(*more: dict) -> list[dict]:
    return [
        {"_target_": "monai.transforms.LoadImaged", "keys": "image"},
        {"_target_": "monai.transforms.EnsureChannelFirstd", "keys": "image"},
        *more,
        {"_target_": "monai.transforms.ScaleIntensityd", "keys": "image"},
    ]


@pytest.fixture(scope="session")
def volumes(tmp_path_factory) -> Path:
    """Eight volumes with a bright ball, as a segmentation manifest; anisotropic, stored in an odd orientation."""
    folder = tmp_path_factory.mktemp("volumes")
    items = []
    for i in range(8):
        rng = np.random.default_rng(i)
        grid = np.stack(np.meshgrid(*[np.arange(n) for n in (24, 20, 12)], indexing="ij"))
        centre = np.array([rng.uniform(8, 15), rng.uniform(8, 12), rng.uniform(5, 7)])[:, None, None, None]
        mask = ((grid - centre) ** 2).sum(0) < 16
        image = 50 + 100 * mask + 10 * rng.standard_normal(mask.shape)
        affine = np.array([[0, -1.5, 0, 9], [2.0, 0, 0, -4], [0, 0, 3.0, 2], [0, 0, 0, 1]])
        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), affine), folder / f"{i}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), affine), folder / f"{i}_label.nii.gz")
        items.append(
            {"image": f"{i}.nii.gz", "label": f"{i}_label.nii.gz", "case": f"c{i}", "patient": f"p{i}", "site": "s"}
        )
    labels = {"0": "background", "1": "ball"}
    write_json(folder / "manifest.json", {"name": "balls", "task": "segmentation", "labels": labels, "training": items})
    return folder / "manifest.json"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Twenty-four pictures of twelve patients: class 1 is bright; a stripe pattern says nothing."""
    folder = tmp_path_factory.mktemp("pictures")
    items = []
    for i in range(24):
        rng = np.random.default_rng(i)
        sick = (i // 2) % 2
        stripes = 20 * np.sin(np.arange(32) / rng.uniform(1, 4))
        pixels = np.clip(80 + 60 * sick + stripes + 15 * rng.standard_normal((32, 32)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        items.append({"image": f"{i}.png", "label": sick, "case": f"c{i}", "patient": f"p{i // 2}", "site": "s"})
    labels = {"0": "normal", "1": "sick"}
    content = {"name": "pictures", "task": "classification", "labels": labels, "training": items}
    write_json(folder / "manifest.json", content)
    return folder / "manifest.json"


@pytest.fixture(scope="session")
def unet_bundle(tmp_path_factory, volumes) -> Path:
    inferer = {"_target_": "monai.inferers.SlidingWindowInferer", "roi_size": [16, 16, 16]}
    space = {"_target_": "monai.transforms.Orientationd", "keys": "image", "axcodes": "RAS", "labels": None}
    return write_bundle(tmp_path_factory.mktemp("b") / "ball_unet", "UNet", UNET, load(space), inferer, volumes)


@pytest.fixture(scope="session")
def densenet_bundle(tmp_path_factory) -> Path:
    inferer = {"_target_": "monai.inferers.SimpleInferer"}
    return write_bundle(tmp_path_factory.mktemp("b") / "densenet", "DenseNet", DENSENET, load(), inferer, None)
