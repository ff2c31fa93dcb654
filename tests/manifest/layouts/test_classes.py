"""Class folders that hold DICOM, and what tells classes from sites."""

from __future__ import annotations

import numpy as np
import pytest
from monai.transforms import LoadImage
from PIL import Image

from monai_transfer.data.phantom.sites import SITES
from monai_transfer.data.phantom.write import write_dicom
from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError
from monai_transfer.manifest import build_manifest


@pytest.fixture(autouse=True)
def _own_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("MONAI_TRANSFER_SECRET", str(tmp_path / "secret" / "key"))


def scan(folder, patient, seed):
    volume = np.random.default_rng(seed).integers(0, 500, (8, 7, 3)).astype(np.int16)
    affine, protocol = np.diag([-1.0, -1.0, 3.0, 1.0]), next(iter(SITES.values())).protocol
    write_dicom(folder, volume, affine, patient_id=patient, protocol=protocol)
    return volume


def every(manifest):
    return [case for split in ("training", "validation", "test") for case in manifest.cases(split)]


def test_dicom_below_classes(tmp_path):
    volumes = {}
    for n in range(8):
        name = ("benign", "malignant")[n % 2]
        volumes[f"PID-{n // 2}"] = name
        scan(tmp_path / "d" / name / f"case{n // 2}", f"PID-{n}", n)
    manifest, notes = build_manifest(tmp_path / "d", tmp_path / "m.json", layout="classes")
    assert manifest.task == "classification" and manifest.class_names == ["benign", "malignant"]
    assert len(every(manifest)) == len(manifest.patients) == 8
    assert "folders read as classes: benign, malignant" in notes
    for case in every(manifest):
        name, number = case.image.split("/")[-2:]
        assert manifest.class_names[case.label] == name
        due = np.random.default_rng(2 * int(number[4:]) + case.label).integers(0, 500, (8, 7, 3))
        np.testing.assert_array_equal(LoadImage(image_only=True, reader=SafeReader())(case.image).array, due)
    assert "PID-" not in (tmp_path / "m.json").read_text()


def test_a_tree_of_patients_is_not_taken_for_classes(tmp_path):
    for n in range(4):
        scan(tmp_path / "d" / f"patient{n}" / "scan", f"PID-{n}", n)
    with pytest.raises(InputError, match="none of the 4 cases found has a label.*--layout classes"):
        build_manifest(tmp_path / "d", tmp_path / "m.json")
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", label_regex="(patient[01]|patient)")
    assert manifest.class_names == ["patient", "patient0", "patient1"]


def test_pictures_of_patients_are_no_classes(tmp_path):
    for n in range(5):
        folder = tmp_path / "d" / "train" / f"patient{n}" / "study"
        folder.mkdir(parents=True)
        Image.fromarray(np.full((8, 8), n, np.uint8)).save(folder / "view.png")
    with pytest.raises(InputError) as refused:
        build_manifest(tmp_path / "d", tmp_path / "m.json")
    assert "patient" not in refused.value.fault.split(":")[0] and not (tmp_path / "m.json").exists()
    asked, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", layout="classes")
    assert len(asked.class_names) == 5


def test_dicom_of_sites_and_splits(tmp_path):
    seed = 0
    for split in ("train", "test"):
        for site in ("north", "south"):
            for name in ("ill", "well"):
                for n in range(3):
                    seed += 1
                    scan(tmp_path / "d" / split / site / name / f"s{n}", f"{split}{site}{name}{n}", seed)
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json", layout="folders")
    assert manifest.sites == ["north", "south"] and manifest.class_names == ["ill", "well"]
    assert len(manifest.cases("test")) == 12 and all("/test/" in case.image for case in manifest.cases("test"))


def test_cases_numbered_anew_under_every_class_are_no_classes(tmp_path):
    for name in ("benign", "malignant"):
        for n in range(4):
            path = tmp_path / "d" / name / f"case{n}" / "slice.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(np.random.default_rng(n + 9 * len(name)).integers(0, 255, (9, 8), np.uint8)).save(path)
    manifest, _ = build_manifest(tmp_path / "d", tmp_path / "m.json")
    assert manifest.class_names == ["benign", "malignant"]


def test_a_name_that_is_not_utf8_is_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        Image.new("L", (5, 5)).save(tmp_path / "d" / name / "x.png")
    odd = str(tmp_path / "d" / "a").encode() + b"/\xff\xfe.png"
    with open(odd, "wb") as stream:  # noqa: PTH123 - a path of bytes
        stream.write((tmp_path / "d" / "a" / "x.png").read_bytes())
    with pytest.raises(InputError, match="the name is not UTF-8") as caught:
        build_manifest(tmp_path / "d", tmp_path / "m.json")
    str(caught.value).encode()
