"""nnU-Net raw folders of both generations."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from monai_transfer.errors import InputError
from monai_transfer.manifest import build_manifest


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), path)


def raw(folder, n=6, channels=2, test_labels=True, **description):
    generator = np.random.default_rng(0)
    for part, number in {"Tr": n, "Ts": 2}.items():
        for i in range(number):
            for c in range(channels):
                write(folder / f"images{part}" / f"{part}_{i:03d}_{c:04d}.nii.gz", generator.random((3, 4, 5)))
            if part == "Tr" or test_labels:
                write(folder / f"labels{part}" / f"{part}_{i:03d}.nii.gz", np.arange(60).reshape(3, 4, 5) % 3)
    content = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "edema": 1, "core": 2},
        "numTraining": n,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content | description))
    return folder


def test_channels_names_and_test_split(tmp_path):
    manifest, notes = build_manifest(raw(tmp_path / "Dataset001_X"), tmp_path / "m.json")
    assert any("read as nnunet (8 cases)" in note for note in notes)
    assert manifest.labels == {"0": "background", "1": "edema", "2": "core"}
    assert manifest.channel_names == {"0": "T1", "1": "FLAIR"}
    assert {case.case for case in manifest.test} == {"Ts_000", "Ts_001"}
    assert len(manifest.training) + len(manifest.validation) == 6 and manifest.validation
    for case in manifest.training:
        assert [path[-12:-7] for path in case.image] == ["_0000", "_0001"]
        assert case.label.endswith(f"labelsTr/{case.case}.nii.gz") and len(case.sha256) == 2


def test_first_generation_names_and_unlabelled_test(tmp_path):
    old = {"labels": {"0": "background", "1": "a", "2": "b"}, "modality": {"0": "MR"}, "channel_names": None}
    training = [{"image": "./imagesTr/Tr_000.nii.gz", "label": "./labelsTr/Tr_000.nii.gz"}]
    folder = raw(tmp_path / "d", channels=1, test_labels=False, training=training, **old)
    manifest, _ = build_manifest(folder, tmp_path / "m.json")
    assert manifest.class_names == ["background", "a", "b"] and manifest.modality == "MR"
    assert len(manifest.unlabeled) == 2 and len(manifest.test) > 0
    assert isinstance(manifest.training[0].image, str)


def test_a_missing_channel_is_named(tmp_path):
    folder = raw(tmp_path / "d")
    (folder / "imagesTr" / "Tr_003_0001.nii.gz").unlink()
    with pytest.raises(InputError, match=r"1 case without every channel \(missing: FLAIR in 1\), first Tr_003"):
        build_manifest(folder, tmp_path / "m.json")
    manifest, _ = build_manifest(folder, tmp_path / "m.json", missing_channels="zeros")
    (case,) = [case for case in [*manifest.training, *manifest.validation] if case.missing]
    assert case.case == "Tr_003" and case.missing == [1]
    write(folder / "imagesTr" / "Tr_002_0002.nii.gz", np.zeros((3, 4, 5)))
    with pytest.raises(InputError, match="case Tr_002 has one too many, channel 0002"):
        build_manifest(folder, tmp_path / "m.json")


def test_regions_and_ignored_voxels(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    folder = raw(tmp_path / "d", labels=labels, regions_class_order=[1, 2])
    manifest, notes = build_manifest(folder, tmp_path / "m.json")
    assert manifest.labels == {"0": "background", "1": "label_1", "2": "core"}
    assert manifest.regions == {"whole": [1, 2], "core": [2]} and manifest.regions_class_order == [1, 2]
    assert manifest.ignore == [3] and manifest.label_mapping.outputs == ["whole", "core"]
    assert any("regions: whole, core" in note for note in notes) and any("3 (ignore)" in note for note in notes)
    plain, _ = build_manifest(folder, tmp_path / "m.json", regions={})
    assert not plain.label_mapping.overlapping
    with pytest.raises(InputError, match="dataset.json: label 'core': 'x' is no number"):
        build_manifest(raw(tmp_path / "e", labels={"background": 0, "core": "x"}), tmp_path / "m.json")


def test_folders_alone_are_pairs_not_classes(tmp_path):
    folder = raw(tmp_path / "d", channels=1)
    (folder / "dataset.json").unlink()
    manifest, notes = build_manifest(folder, tmp_path / "m.json")
    assert manifest.task == "segmentation" and any("read as nnunet" in note for note in notes)
    for part in ("Tr", "Ts"):
        for path in (folder / f"images{part}").iterdir():
            path.rename(path.with_name(path.name.replace("_0000", "")))
    manifest, notes = build_manifest(folder, tmp_path / "m.json")
    assert manifest.task == "segmentation" and any("read as pairs" in note for note in notes)
    assert {case.case for case in manifest.test} == {"Ts_000", "Ts_001"} and manifest.validation
