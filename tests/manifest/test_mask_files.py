"""Masks that are read though they are odd: flat NIfTI of pictures, one-hot, scaled; and those that cannot be."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError
from monai_transfer.inspection import check_manifest
from monai_transfer.manifest import build_manifest

RANDOM = np.random.default_rng(0)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def nifti(path: Path, array, slope=None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, AFFINE)
    if slope:
        image.header.set_slope_inter(slope, 0)
    nibabel.save(image, path)


def every(manifest):
    return [case for split in ("training", "validation", "test", "unlabeled") for case in manifest.cases(split)]


def block(shape, i=0):
    mask = np.zeros(shape, np.uint8)
    mask[1 + i : 4 + i, 2:7] = 1
    return mask


def test_flat_masks_of_pictures_lie_on_their_image(tmp_path):
    for i in range(6):
        mask = block((12, 9), i)  # x, y
        image = RANDOM.integers(0, 100, (9, 12)) + 150 * mask.T
        (tmp_path / "d" / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "d" / "images" / f"a{i}.png")
        nifti(tmp_path / "d" / "masks" / f"a{i}.nii.gz", mask[:, :, None])
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json")
    assert any("6 NIfTI masks of pictures written as PNG" in note for note in notes)
    for case in every(manifest):
        label = SafeReader(palette="index").read_volume(case.label).array
        picture = SafeReader().read_volume(case.image).array
        assert label.shape == picture.shape and (picture[label == 1] >= 150).all() and (picture[label == 0] < 100).all()
    assert not [finding for finding in check_manifest(manifest) if finding.severity == "error"]
    nifti(tmp_path / "d" / "masks" / "a0.nii.gz", block((11, 9))[:, :, None])
    with pytest.raises(InputError, match="a0.nii.gz: mask of 11 x 9 for a picture of 12 x 9"):
        build_manifest(tmp_path / "d", tmp_path / "m.json")


@pytest.mark.parametrize("background", [True, False])
def test_one_hot_masks_become_class_numbers(tmp_path, background):
    truth = {}
    for i in range(6):
        numbers = np.zeros((5, 6, 4), np.uint8)
        numbers[1:3, i % 3 :] = 1
        numbers[4] = 2
        truth[f"a{i}"] = numbers
        hot = np.eye(3, dtype=np.uint8)[numbers]
        nifti(tmp_path / "d" / "masks" / f"a{i}.nii.gz", hot if background else hot[..., 1:])
        nifti(tmp_path / "d" / "images" / f"a{i}.nii.gz", RANDOM.random((5, 6, 4)).astype(np.float32))
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json")
    assert any("6 one-hot masks written as class numbers" in note for note in notes)
    for case in every(manifest):
        image = nibabel.load(case.label)
        assert np.array_equal(np.asarray(image.dataobj), truth[case.case]) and np.allclose(image.affine, AFFINE)
    assert manifest.class_names == ["background", "label_1", "label_2"]


def test_channels_that_overlap_are_refused_with_the_share(tmp_path):
    hot = np.zeros((4, 5, 2, 2), np.uint8)
    hot[0] = 1
    nifti(tmp_path / "d" / "masks" / "a.nii.gz", hot)
    nifti(tmp_path / "d" / "images" / "a.nii.gz", RANDOM.random((4, 5, 2)).astype(np.float32))
    with pytest.raises(InputError, match="a.nii.gz: its channels overlap in 25.00% of the voxels.*regions"):
        build_manifest(tmp_path / "d", tmp_path / "m.json")


def test_scaled_masks_count_as_what_they_mean(tmp_path):
    for i in range(6):
        nifti(tmp_path / "d" / "masks" / f"a{i}.nii.gz", block((6, 9, 4)) * np.int16(2**14), slope=1.0000153 / 2**14)
        nifti(tmp_path / "d" / "images" / f"a{i}.nii.gz", RANDOM.random((6, 9, 4)).astype(np.float32))
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json")
    assert manifest.class_names == ["background", "foreground"]
    assert not [finding for finding in check_manifest(manifest) if finding.severity == "error"]
    label = SafeReader(palette="index").read_volume(manifest.training[0].label).array
    assert set(np.unique(label)) == {0, 1}
