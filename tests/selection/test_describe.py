"""Measurements of single images against what was put into them."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest
from monai_transfer.selection.describe import FEATURE_NAMES, describe_case, noise_level


def smooth(side=64):
    x, y = np.meshgrid(np.linspace(0, 3, side), np.linspace(0, 2, side), indexing="ij")
    return np.sin(x) + np.cos(2 * y)


def manifest(folder, item, task="segmentation", labels=None):
    content = {"name": "one", "task": task, "training": [{"case": "c", "patient": "p", "site": "s", **item}]}
    return Manifest.from_dict(content | {"labels": labels or {"0": "background", "1": "a"}}, folder)


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.2])
def test_noise_is_what_was_added(sigma):
    image = smooth() + sigma * np.random.default_rng(0).standard_normal((64, 64))
    image[20:40, 20:40] += 1  # an edge must not count as noise
    assert noise_level(image) == pytest.approx(sigma, rel=0.1)
    padded = np.zeros((200, 200))
    padded[:64, :64] = image
    assert noise_level(padded) == pytest.approx(sigma, rel=0.1)


def test_a_volume_with_its_label(tmp_path):
    rng = np.random.default_rng(0)
    image = 100 * rng.random((20, 24, 10)).astype(np.float32)
    mask = np.zeros((20, 24, 10), np.uint8)
    mask[5:15, 5:15, 2:6] = 2
    image[mask == 2] += 50
    # axes stored as (feet-head, left-right, back-front)
    affine = np.array([[0, 2.0, 0, 0], [0, 0, 0.5, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / "i.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, affine), tmp_path / "l.nii.gz")
    whole = manifest(
        tmp_path, {"image": "i.nii.gz", "label": "l.nii.gz"}, labels={"0": "background", "1": "a", "2": "lesion"}
    )
    found = describe_case(whole.training[0], whole)
    assert found.shape == (24, 10, 20)
    assert found.spacing == pytest.approx((2.0, 0.5, 3.0))
    assert found.sizes == {"a": 0, "lesion": pytest.approx(400 * 3 / 1000)}
    low, high = np.quantile(image, (0.01, 0.99))
    scaled = (image - low) / (high - low)
    assert found.scale == pytest.approx(high - low, rel=1e-3)
    assert found.label_contrast["lesion"] == pytest.approx(
        scaled[mask == 2].mean() - scaled[mask != 2].mean(), abs=1e-3
    )
    assert "a" not in found.label_contrast
    assert found.quantiles[0] == pytest.approx(0, abs=0.01)
    assert found.quantiles[-1] == pytest.approx(1, abs=0.01)
    assert found.features.shape == (len(FEATURE_NAMES),)


def test_an_intensity_gain_or_offset_changes_only_the_scale(tmp_path):
    image = np.random.default_rng(0).random((16, 16, 8)).astype(np.float32)
    for name, values in {"a": image, "b": 40 * image + 7}.items():
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), tmp_path / f"{name}.nii.gz")
    a, b = (
        describe_case(m.training[0], m)
        for m in (manifest(tmp_path, {"image": f"{n}.nii.gz", "label": None}) for n in "ab")
    )
    assert b.features == pytest.approx(a.features, abs=1e-4)
    assert b.scale / a.scale == pytest.approx(40, rel=1e-3)


def test_a_picture_with_a_class(tmp_path):
    pixels = (255 * np.random.default_rng(0).random((30, 20, 3))).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "i.png")
    whole = manifest(tmp_path, {"image": "i.png", "label": 1}, "classification", {"0": "normal", "1": "sick"})
    found = describe_case(whole.training[0], whole)
    assert (found.channels, sorted(found.shape), found.spacing, found.target) == (3, [20, 30], None, "sick")


def test_faults_name_the_file(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 5, 5), np.float32), np.eye(4)), tmp_path / "flat.nii.gz")
    flat = manifest(tmp_path, {"image": "flat.nii.gz", "label": None})
    with pytest.raises(InputError, match="flat.nii.gz: the image is constant"):
        describe_case(flat.training[0], flat)
