"""What ``predict`` makes of what it is given: one item an image, named so that no output is written over another."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monai.data import MetaTensor

from monai_transfer.data.phantom.sites import SITES, scan_patient
from monai_transfer.data.phantom.write import write_dicom
from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError
from monai_transfer.predict.inputs import find_items
from monai_transfer.predict.items import ReadableItems


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    scan = scan_patient(SITES["site_b"], 20)
    folder = tmp_path_factory.mktemp("dicom") / "series"
    write_dicom(folder, scan.image[..., :6], scan.affine, patient_id="P20", protocol=SITES["site_b"].protocol)
    return folder


def copy(series: Path, target: Path, prefix: str = "", **values) -> None:
    """The series again, with other header values."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(series.iterdir()):
        dataset = pydicom.dcmread(path)
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        dataset.save_as(target / f"{prefix}{path.name}")


def test_series_folders_named_by_uids_keep_their_whole_name(series, tmp_path):
    for name in ("1.2.840.1", "1.2.840.2"):
        shutil.copytree(series, tmp_path / "in" / name)
    items = find_items([tmp_path / "in"])
    assert [item.name for item in items] == ["1.2.840.1", "1.2.840.2"]
    assert [item.image for item in items] == [str(tmp_path / "in" / n) for n in ("1.2.840.1", "1.2.840.2")]
    assert [len(item.dicom) for item in items] == [6, 6] and not any(item.linked for item in items)


def test_several_series_in_one_folder_are_several_images(series, tmp_path):
    copy(series, tmp_path / "study", "a", SeriesInstanceUID="1.2.3", SeriesNumber=4, SeriesDescription="T1 axial")
    copy(series, tmp_path / "study", "b", SeriesInstanceUID="1.2.4", SeriesNumber=7, SeriesDescription="T2 axial")
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    copy(series, tmp_path / "study", "c", SeriesInstanceUID="1.2.5", SeriesNumber=1, ImageType=scout)
    items = find_items([tmp_path / "study"])
    assert [item.name for item in items] == ["study/series_4", "study/series_7"]
    assert all(item.linked and len(item.dicom) == 6 for item in items)
    for wanted in ("7", "t2"):
        (one,) = find_items([tmp_path / "study"], series=wanted)
        assert {pydicom.dcmread(path).SeriesNumber for path in one.dicom} == {7}
        assert one.name == "study"
    with pytest.raises(InputError, match="no DICOM series is numbered or described 'flair'"):
        find_items([tmp_path / "study"], series="flair")


def test_a_damaged_slice_is_not_left_out_but_refused(series, tmp_path):
    shutil.copytree(series, tmp_path / "series")
    broken = tmp_path / "series" / "x_broken.dcm"
    broken.write_bytes(next(series.iterdir()).read_bytes()[:200])
    (item,) = find_items([tmp_path / "series"])
    assert item.image == str(tmp_path / "series")
    with pytest.raises(InputError):
        SafeReader().read_volume(item.image)


def test_channels_are_grouped_only_for_a_model_of_several(tmp_path):
    for name in ("p1_0000.nii.gz", "p1_0001.nii.gz", "p2_0000.nii.gz", "whole.nii.gz"):
        (tmp_path / name).write_bytes(b"x")
    assert len(find_items([tmp_path])) == 4
    items = {item.name: item for item in find_items([tmp_path], channels=2)}
    assert sorted(items) == ["p1", "p2", "whole"]
    assert [Path(path).name for path in items["p1"].images] == ["p1_0000.nii.gz", "p1_0001.nii.gz"]
    assert items["p1"].fault is None and "_0000, and the model takes 2" in items["p2"].fault.fault


BRATS = ("t1", "t1ce", "t2", "flair")


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_files_called_by_the_channels_names_are_one_image(tmp_path):
    """A BraTS folder as it comes: four contrasts and the truth of each case; one case lacks a contrast."""
    cases = [f"{name}/{name}" for name in ("BraTS20_001", "BraTS20_002")]
    touch(tmp_path, *(f"{case}_{word}.nii.gz" for case in cases for word in (*BRATS, "seg")))
    touch(tmp_path, *(f"plain/{word.upper()}.nii.gz" for word in (*BRATS[:2], BRATS[3])), "plain/seg.nii.gz")
    notes: list[str] = []
    items = {item.name: item for item in find_items([tmp_path], channels=4, names=BRATS, notes=notes)}
    assert sorted(items) == [*cases, "plain"]
    ends = [f"BraTS20_001_{word}.nii.gz" for word in BRATS]  # the model's order, not the alphabet's
    assert [Path(path).name for path in items[cases[0]].images] == ends and items[cases[0]].fault is None
    assert items["plain"].fault.fault == "lacks channel 2 (t2), and the model never did without one"
    (note,) = notes
    assert note.startswith("3 paths left out as masks beside images, e.g. ") and "_seg.nii.gz" in note
    lacking = {i.name: i for i in find_items([tmp_path], channels=4, names=BRATS, may_lack=True)}["plain"]
    assert lacking.missing == [2] and lacking.fault is None and len(lacking.images) == 4
    assert [item.name for item in find_items([tmp_path / "plain"], channels=4, names=BRATS)] == ["plain"]
    touch(tmp_path, "plain/T1.nii")
    (twice,) = find_items([tmp_path / "plain"], channels=4, names=BRATS)
    assert "are both its channel 0 (t1)" in twice.fault.fault


def test_an_ending_like_a_channels_says_nothing_of_one_file_alone(tmp_path):
    touch(tmp_path, "scan_t1.nii.gz", "other_flair.nii.gz")
    assert [item.image for item in find_items([tmp_path], channels=4, names=BRATS)] == [
        str(tmp_path / name) for name in ("other_flair.nii.gz", "scan_t1.nii.gz")
    ]


def test_masks_beside_images_are_not_predicted_on(tmp_path):
    touch(tmp_path / "beside", "p1.nii.gz", "p1_seg.nii.gz", "p2.nii.gz", "lone_mask.nii.gz")
    touch(tmp_path / "pair", "imagesTr/p1_0000.nii.gz", "labelsTr/p1.nii.gz")
    notes: list[str] = []
    names = [item.name for item in find_items([tmp_path / "beside", tmp_path / "pair"], notes=notes)]
    assert names == ["beside/lone_mask", "beside/p1", "beside/p2", "pair/imagesTr/p1_0000"]
    assert notes[0].startswith("2 paths left out as masks beside images")
    (given,) = find_items([tmp_path / "beside" / "p1_seg.nii.gz"])  # named itself, so meant
    assert given.name == "p1_seg"
    assert [item.name for item in find_items([tmp_path / "pair" / "labelsTr"])] == ["p1"]


def test_names_that_differ_in_case_alone_are_refused(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("Head.nii.gz", "head.nii"):
        (tmp_path / "b" / name).write_bytes(b"x")
    with pytest.raises(InputError, match="written over by the prediction of .*; rename one"):
        find_items([tmp_path])


def test_the_data_set_goes_past_a_fault_and_tells_when_one_is_done():
    def transform(item):
        if item["image"] == "missing":
            raise InputError("not found", path="missing")
        return {"image": MetaTensor(np.zeros((1, 4, 4)))}

    done = []
    data = [{"image": name, "name": f"a/{name}", "shown": name} for name in ("one", "missing", "two")]
    dataset = ReadableItems(data, transform, "/root", channels=1, dims=2)
    dataset.done = done.append
    names = [sample["image"].meta["filename_or_obj"] for sample in dataset]
    assert names == ["/root/a/one.nii.gz", "/root/a/two.nii.gz"]
    assert done == [0, 2] and list(dataset.faults) == [1]
    three = ReadableItems(data, transform, "/root", channels=3, dims=2)
    assert list(three) == []
    assert str(three.faults[0]).startswith("one: holds 1 channel, and the model takes 3; call the files CASE_0000")
