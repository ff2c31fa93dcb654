"""Masks beside their images: prostate-like sites, ACDC-like and BraTS-like patients."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_transfer.errors import InputError
from monai_transfer.manifest import build_manifest

SEED = iter(range(10**6))


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(next(SEED)).random((3, 4, 5))
    if any(word in path.name for word in ("seg", "gt", "mask")):
        values = np.arange(60).reshape(3, 4, 5) % 2
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), path)


def every(manifest):
    return [case for split in ("training", "validation", "test", "unlabeled") for case in manifest.cases(split)]


def test_folders_of_several_cases_are_sites(tmp_path):
    for site in ("BIDMC", "UCL"):
        for i in range(5):
            write(tmp_path / "d" / site / f"Case{i:02d}.nii.gz")
            write(tmp_path / "d" / site / f"Case{i:02d}_segmentation.nii.gz")
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json")
    assert any("read as beside (10 cases)" in note for note in notes)
    assert manifest.sites == ["BIDMC", "UCL"] and len(manifest.patients) == 10
    for case in every(manifest):
        assert case.label == case.image.replace(".nii.gz", "_segmentation.nii.gz") and case.site in case.image


def test_patient_folders_with_frames_and_splits(tmp_path):
    for split, numbers in {"training": range(1, 7), "testing": range(7, 9)}.items():
        for i in numbers:
            for frame in ("frame01", "frame12"):
                write(tmp_path / "d" / split / f"patient{i:03d}" / f"patient{i:03d}_{frame}.nii.gz")
                write(tmp_path / "d" / split / f"patient{i:03d}" / f"patient{i:03d}_{frame}_gt.nii.gz")
            write(tmp_path / "d" / split / f"patient{i:03d}" / f"patient{i:03d}_4d.nii.gz")
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json", exclude=["*_4d*"])
    assert manifest.patients == [f"patient{i:03d}" for i in range(1, 9)] and len(every(manifest)) == 16
    assert {case.patient for case in manifest.test} == {"patient007", "patient008"}
    assert manifest.validation and manifest.sites == ["unknown"] and manifest.unlabeled == []
    assert any("8 cases left out by --exclude" in note for note in notes)


def test_several_channels_per_patient(tmp_path):
    for i in range(4):
        for word in ("t1", "t1ce", "flair", "seg"):
            write(tmp_path / "d" / f"B_{i}" / f"B_{i}_{word}.nii.gz")
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", channels=["t1", "flair"])
    assert {case.case for case in every(manifest)} == {f"B_{i}" for i in range(4)}
    for case in every(manifest):
        assert [Path(path).name for path in case.image] == [f"{case.case}_t1.nii.gz", f"{case.case}_flair.nii.gz"]
        assert case.label.endswith(f"{case.case}_seg.nii.gz")
    assert manifest.channel_names == {"0": "t1", "1": "flair"}
    with pytest.raises(InputError, match="--channels flair,t1,t1ce"):
        build_manifest(tmp_path / "d", tmp_path / "m.json")


def test_image_and_mask_alone_in_a_patient_folder(tmp_path):
    for i in range(4):
        write(tmp_path / "d" / f"P{i}" / "image.nii.gz")
        write(tmp_path / "d" / f"P{i}" / "mask.nii.gz")
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json")
    assert manifest.patients == ["P0", "P1", "P2", "P3"] == sorted(case.case for case in every(manifest))


def test_two_masks_for_one_image(tmp_path):
    for name in ("a.nii.gz", "a_seg.nii.gz", "a_mask.nii.gz"):
        write(tmp_path / "d" / name)
    with pytest.raises(InputError, match="both fit a"):
        build_manifest(tmp_path / "d", tmp_path / "m.json", layout="beside")
