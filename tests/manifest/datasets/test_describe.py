"""Known data sets: their descriptions are whole, and each builds from a copy of the shape that it describes."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_transfer.errors import InputError
from monai_transfer.manifest.checks import SPLITS
from monai_transfer.manifest.datasets import build_dataset, dataset_names, load_dataset
from monai_transfer.manifest.layouts import layout_names
from monai_transfer.manifest.options import BuildOptions

REPOSITORY = Path(__file__).parents[3]
SEED = iter(range(10**6))


def picture(path: Path, mask=False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(next(SEED)).integers(0, 256, (6, 5))
    Image.fromarray((255 * (pixels > 99) if mask else pixels).astype(np.uint8)).save(path)


def volume(path: Path, top=0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(next(SEED)).random((3, 4, 5))
    values = np.arange(60).reshape(3, 4, 5) % (top + 1) if top else values
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), path)


def every(manifest):
    return [case for split in SPLITS for case in manifest.cases(split)]


@pytest.mark.parametrize("name", dataset_names())
def test_descriptions_are_whole(name):
    known = load_dataset(name)
    assert known.name == name
    for text in (known.title, known.description, known.licence, known.reference, known.obtain, known.modality):
        assert len(text) > 1
    assert set(known.options) <= {field.name for field in fields(BuildOptions)}
    assert known.options.get("layout", "auto") in {*layout_names(), "auto", "folders"}
    committed = REPOSITORY / "data_manifests" / f"{name}.json"
    assert json.loads(committed.read_text()) == json.loads(
        (REPOSITORY / "monai_transfer" / "manifest" / "datasets" / f"{name}.json").read_text()
    )


def test_unknown_names_and_missing_parts(tmp_path):
    with pytest.raises(InputError, match="did you mean 'acdc'"):
        load_dataset("acdcc")
    with pytest.raises(InputError, match="MontgomerySet/CXR_png: is not there.*download MontgomerySet"):
        build_dataset("tuberculosis-two-hospitals", tmp_path, tmp_path / "m.json")


def test_msd(tmp_path):
    for i in range(6):
        volume(tmp_path / "d" / "imagesTr" / f"la_{i}.nii.gz")
        volume(tmp_path / "d" / "labelsTr" / f"la_{i}.nii.gz", top=1)
    items = [{"image": f"./imagesTr/la_{i}.nii.gz", "label": f"./labelsTr/la_{i}.nii.gz"} for i in range(6)]
    content = {"name": "LeftAtrium", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "left atrium"}}
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(content | {"training": items, "test": []}))
    manifest, notes = build_dataset("msd-heart", tmp_path / "d", tmp_path / "m.json", site="kcl")
    assert manifest.class_names == ["background", "left atrium"] and manifest.sites == ["kcl"]
    assert manifest.licence == "CC BY-SA 4.0" and "this copy has 6 cases, a whole one 30" in notes


def test_acdc(tmp_path):
    for i in range(1, 9):
        base = tmp_path / "d" / ("training" if i < 7 else "testing") / f"patient{i:03d}"
        volume(base / f"patient{i:03d}_4d.nii.gz")
        for frame in ("frame01", "frame12"):
            volume(base / f"patient{i:03d}_{frame}.nii.gz")
            volume(base / f"patient{i:03d}_{frame}_gt.nii.gz", top=3)
    manifest, _ = build_dataset("acdc", tmp_path / "d", tmp_path / "m.json")
    assert len(every(manifest)) == 16 and len(manifest.patients) == 8 and manifest.sites == ["dijon"]
    assert {case.patient for case in manifest.test} == {"patient007", "patient008"}
    assert manifest.labels["3"] == "left ventricle" and not any("_4d" in case.image for case in every(manifest))


def test_tuberculosis_pair(tmp_path):
    for i in range(12):
        picture(tmp_path / "d" / "MontgomerySet" / "CXR_png" / f"MCUCXR_{i:04d}_{i % 2}.png")
        picture(tmp_path / "d" / "ChinaSet_AllFiles" / "CXR_png" / f"CHNCXR_{i:04d}_{i // 6}.png")
    manifest, _ = build_dataset("tuberculosis-two-hospitals", tmp_path / "d", tmp_path / "m.json")
    assert manifest.sites == ["montgomery", "shenzhen"] and len(every(manifest)) == 24
    assert all(
        case.label == int(case.case[-1]) and ("MCU" in case.case) == (case.site[0] == "m") for case in every(manifest)
    )


def test_two_fundus_cameras(tmp_path):
    for i in range(21, 29):
        picture(tmp_path / "d" / "DRIVE" / "training" / "images" / f"{i}_training.tif")
        picture(tmp_path / "d" / "DRIVE" / "training" / "mask" / f"{i}_training_mask.gif", mask=True)
        picture(tmp_path / "d" / "DRIVE" / "training" / "1st_manual" / f"{i}_manual1.gif", mask=True)
    for i in range(1, 5):
        picture(tmp_path / "d" / "DRIVE" / "test" / "images" / f"{i:02d}_test.tif")
        picture(tmp_path / "d" / "DRIVE" / "test" / "1st_manual" / f"{i:02d}_manual1.gif", mask=True)
        for eye in "LR":
            picture(tmp_path / "d" / "CHASE_DB1" / f"Image_{i:02d}{eye}.jpg")
            picture(tmp_path / "d" / "CHASE_DB1" / f"Image_{i:02d}{eye}_1stHO.png", mask=True)
            picture(tmp_path / "d" / "CHASE_DB1" / f"Image_{i:02d}{eye}_2ndHO.png", mask=True)
    manifest, _ = build_dataset("retina-two-cameras", tmp_path / "d", tmp_path / "m.json")
    drive, chase = manifest.filter("drive"), manifest.filter("chase_db1")
    assert len(every(drive)) == 12 and {case.case for case in drive.test} == {f"{i:02d}_test" for i in range(1, 5)}
    assert len(every(chase)) == 8 and chase.patients == [f"Image_{i:02d}" for i in range(1, 5)]
    for case in every(manifest):
        assert set(np.unique(np.asarray(Image.open(case.label)))) <= {0, 1}
    given = np.asarray(Image.open(tmp_path / "d" / "DRIVE" / "training" / "1st_manual" / "22_manual1.gif"))
    made = next(case.label for case in every(drive) if case.case == "22_training")
    assert np.array_equal(np.asarray(Image.open(made)), given > 0)  # vessels, not the field of view


def test_prostate_of_several_sites(tmp_path):
    for site in ("RUNMC", "BMC", "UCL"):
        for i in range(5):
            volume(tmp_path / "d" / site / f"Case{i:02d}.nii.gz")
            volume(tmp_path / "d" / site / f"Case{i:02d}_Segmentation.nii.gz", top=2)
    manifest, _ = build_dataset("prostate-six-sites", tmp_path / "d", tmp_path / "m.json")
    assert manifest.sites == ["BMC", "RUNMC", "UCL"] and len(manifest.patients) == 15
    assert set(np.unique(nibabel.load(manifest.training[0].label).dataobj)) == {0, 1}


def test_spine_of_many_sites(tmp_path):
    rows = ["participant_id\tsex\tage\tdate_of_scan\tinstitution_id\tinstitution\tmanufacturer"]
    for site, maker in (("amu", "Siemens"), ("beijing750", "GE"), ("fslAchieva", "Philips")):
        for i in range(1, 6):
            name = f"sub-{site}{i:02d}"
            rows.append(f"{name}\tF\t-\t2019-02-12\t{site}\tHospital of {site}\t{maker}")
            labels = tmp_path / "d" / "derivatives" / "labels" / name / "anat"
            for contrast in ("T1w", "T2w", "T2star"):
                volume(tmp_path / "d" / name / "anat" / f"{name}_{contrast}.nii.gz")
                volume(labels / f"{name}_{contrast}_label-SC_seg.nii.gz", top=2 if contrast == "T2w" else 1)
                volume(labels / f"{name}_space-other_{contrast}_label-SC_seg.nii.gz", top=1)
            for kind in (
                "label-canal_seg",
                "label-discs_dlabel",
                "label-spine_dseg",
                "label-rootlets_dseg",
                "PAM50_seg",
            ):
                volume(labels / f"{name}_T2w_{kind}.nii.gz", top=9)
    (tmp_path / "d" / "participants.tsv").write_text("\n".join(rows) + "\n")
    manifest, notes = build_dataset("spine-many-sites", tmp_path / "d", tmp_path / "m.json")
    assert (
        manifest.sites == ["amu", "beijing750", "fslAchieva"] and len(manifest.patients) == len(every(manifest)) == 15
    )
    assert manifest.class_names == ["background", "spinal cord"] and manifest.licence == "CC0"
    for case in every(manifest):
        assert case.image.endswith("_T2w.nii.gz") and case.acquired is None  # a calendar date stays behind
        given = tmp_path / "d" / "derivatives" / "labels" / case.patient / "anat"
        given = nibabel.load(given / f"{case.patient}_T2w_label-SC_seg.nii.gz").get_fdata()
        assert np.array_equal(nibabel.load(case.label).get_fdata(), given > 0)
    assert any("left out: T1w" in note or "T1w (15 images)" in note for note in notes)


def test_embedded_set_keeps_its_splits(tmp_path):
    from monai_transfer.data.phantom.sets import write_set
    from monai_transfer.manifest import Manifest

    write_set("regression", tmp_path / "set", patients=1)
    manifest, _ = build_dataset("embedded-regression", tmp_path / "set", tmp_path / "m.json", checksums=False)
    own = Manifest.load(tmp_path / "set" / "manifest.json")
    for split in SPLITS:
        assert [(c.case, c.label, c.image) for c in manifest.cases(split)] == [
            (c.case, c.label, c.image) for c in own.cases(split)
        ]


REAL = {
    "hippocampus-two-sites": ("hippocampus", ["float32", "uint8"]),
    "sarcoma-mr": ("sarcoma", ["GE", "Philips"]),
    "sarcoma-modalities": ("sarcoma", ["ct", "mr", "pet"]),
    "nuclei-two-stains": ("nuclei", ["fluorescence", "histology"]),
}


@pytest.mark.parametrize("name", REAL)
def test_real_copies_are_recognised(real_data, tmp_path, name):
    folder, sites = REAL[name]
    manifest, notes = build_dataset(name, real_data / folder, tmp_path / "m.json")
    assert manifest.sites == sites and len(every(manifest)) == load_dataset(name).cases
    assert "its images are those of the described copy" in notes
    if name == "sarcoma-modalities":
        assert len(manifest.patients) == 26
