"""Tiny sets as users have them: 3D NIfTI masks, 2D PNG masks and classes, a number per 3D scan; two sites each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_transfer.data.phantom.sets import write_set
from monai_transfer.manifest import Manifest

PACKAGED = Path(__file__).parents[1] / "bundles"
SHORT = {"max_epochs": 1, "steps_per_epoch": 2, "val_interval": 1}
COUNTS = {"training": 4, "validation": 2, "test": 2}
# turned, anisotropic, off the origin: nothing that an identity affine would hide
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2.0, 0, -20], [0, 0, 3.0, 5], [0, 0, 0, 1]])


def blob(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A bright ball somewhere in the middle: (mask)."""
    centre = [n / 2 + rng.uniform(-n / 8, n / 8) for n in shape]
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) < (min(shape) / 4) ** 2


def _volume(path: Path, array: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)


def _write(folder: Path, task: str, dims: int, channels: int, labels: list[str]) -> Path:
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    content: dict = {
        "name": "tiny",
        "task": task,
        "labels": {str(i): name for i, name in enumerate(labels)},
        "channel_names": {str(i): f"c{i}" for i in range(channels)},
    }
    if not labels:
        del content["labels"]
    shape = (24, 20, 12) if dims == 3 else (40, 32)
    for site in ("north", "south"):
        for split, count in COUNTS.items():
            for number in range(count):
                case = f"{site}_{split}_{number}"
                mask = blob(rng, shape)
                bright = 100 * (number % 2 if task == "classification" else 1)
                image = rng.normal(50, 5, shape) + bright * mask
                item: dict = {"case": case, "patient": case, "site": site}
                if dims == 3:
                    item["image"] = f"images/{case}.nii.gz"
                    array = image.astype(np.float32)
                    _volume(folder / item["image"], np.stack([array] * channels, -1) if channels > 1 else array)
                else:
                    item["image"] = f"images/{case}.png"
                    Image.fromarray(image.clip(0, 255).astype(np.uint8).T).save(folder / item["image"])
                if task in ("segmentation", "localization"):
                    item["label"] = f"labels/{case}" + (".nii.gz" if dims == 3 else ".png")
                    if dims == 3:
                        _volume(folder / item["label"], mask.astype(np.uint8))
                    else:
                        Image.fromarray(mask.astype(np.uint8).T).save(folder / item["label"])
                elif task == "classification":
                    item["label"] = labels[number % 2]
                else:
                    item["label"] = round(float(mask.sum()), 1)
                content.setdefault(split, []).append(item)
    Manifest.from_dict(content, folder).save(folder / "manifest.json")
    return folder / "manifest.json"


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory) -> Callable[..., Path]:
    """``tiny_set(task, dims, channels=1, labels=[...])``: the manifest's path; made once per kind."""
    made: dict = {}

    def make(task: str, dims: int, channels: int = 1, labels: tuple[str, ...] = ("background", "lesion")) -> Path:
        names = () if task == "regression" else labels
        key = (task, dims, channels, names)
        if key not in made:
            made[key] = _write(tmp_path_factory.mktemp(f"{task}{dims}"), task, dims, channels, list(names))
        return made[key]

    return make


@pytest.fixture(scope="session")
def embedded_set_of_two(tmp_path_factory) -> Callable[[str], Path]:
    """``embedded_set_of_two(task)``: folder of the embedded set, two patients per site and split; to be read only."""
    made: dict[str, Path] = {}

    def make(task: str) -> Path:
        if task not in made:
            made[task] = tmp_path_factory.mktemp("embedded") / task
            write_set(task, made[task], patients=2)
        return made[task]

    return make


@pytest.fixture
def packaged() -> Path:
    """Folder of the packaged bundles."""
    return PACKAGED


def copied(name: str, folder: Path) -> Path:
    """A copy of a packaged bundle in ``folder``, without the runs that it holds."""
    return Path(shutil.copytree(PACKAGED / name, folder / name, ignore=shutil.ignore_patterns("runs")))
