"""BraTS of both naming generations: channels, values with their gap, regions, sessions, missing contrasts."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_transfer.errors import InputError
from monai_transfer.manifest import build_manifest

RANDOM = np.random.default_rng(0)
OLD, NEW = ("flair", "t1", "t1ce", "t2"), ("t1c", "t1n", "t2f", "t2w")


def brats(folder: Path, names, words, values, mark="_"):
    for name in names:
        for word in (*words, "seg"):
            array = np.resize(values, (4, 4, 4)) if word == "seg" else RANDOM.random((4, 4, 4))
            path = folder / name / f"{name}{mark}{word}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), np.eye(4)), path)
    return folder


def test_values_with_a_gap_and_regions(tmp_path):
    folder = brats(tmp_path / "d", [f"BraTS20_Training_{i:03d}" for i in range(6)], OLD, (0, 1, 2, 4))
    manifest, notes = build_manifest(folder, tmp_path / "m.json")
    assert any("read as brats (6 cases)" in note for note in notes)
    assert manifest.labels == {"0": "background", "1": "necrotic core", "2": "oedema", "4": "enhancing tumour"}
    assert manifest.regions == {"whole tumour": [1, 2, 4], "tumour core": [1, 4], "enhancing": [4]}
    assert list(manifest.channel_names.values()) == ["t1", "t1ce", "t2", "flair"]
    assert [Path(path).name.split("_")[-1] for path in manifest.training[0].image][0] == "t1.nii.gz"
    mapping = manifest.label_mapping
    every_region = mapping.targets(mapping.encode(np.array([[0, 1, 2, 4]])))
    assert mapping.decode(mapping.from_targets(every_region)).tolist() == [[0, 1, 2, 4]]


def test_since_2023_without_a_gap_and_with_sessions(tmp_path):
    names = [f"BraTS-GLI-{i:05d}-{session}" for i in range(5) for session in (100, 101)]
    folder = brats(tmp_path / "d", names, NEW, (0, 1, 2, 3, 4), mark="-")
    manifest, _ = build_manifest(folder, tmp_path / "m.json")
    assert manifest.labels["3"] == "enhancing tumour" and manifest.labels["4"] == "resection cavity"
    assert manifest.regions["cavity"] == [4] and manifest.regions["whole tumour"] == [1, 2, 3]
    assert manifest.patients == [f"BraTS-GLI-{i:05d}" for i in range(5)]


def test_fewer_channels_and_a_missing_one(tmp_path):
    folder = brats(tmp_path / "d", [f"BraTS20_Training_{i:03d}" for i in range(6)], OLD, (0, 1, 2, 4))
    (folder / "BraTS20_Training_002" / "BraTS20_Training_002_t2.nii.gz").unlink()
    with pytest.raises(InputError, match="missing: t2 in 1"):
        build_manifest(folder, tmp_path / "m.json")
    manifest, _ = build_manifest(folder, tmp_path / "m.json", channels=["flair", "t1ce"])
    assert list(manifest.channel_names.values()) == ["flair", "t1ce"]
    with pytest.raises(InputError, match="no image is called 't1w'"):
        build_manifest(folder, tmp_path / "m.json", channels=["t1w"])
