"""``predict``: files, folders and series in; each image's own grid out, and no file written over another."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.predict import find_images, predict_images
from monai_transfer.bundle.run import run_workflow
from monai_transfer.data.phantom.sites import SITES, scan_patient
from monai_transfer.data.phantom.write import write_dicom
from monai_transfer.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def segmenter(packaged) -> Path:
    return packaged / "head_mr_segmentation"


@pytest.fixture
def sample(segmenter) -> Path:
    return next((segmenter / "sample").iterdir())


def test_equal_names_in_two_folders_a_file_and_its_own_grid(segmenter, sample, tmp_path):
    image = nibabel.load(sample)
    for name, array, affine in (
        ("a", np.asarray(image.dataobj), image.affine),
        # the same head stored the other way round: axes turned and flipped
        ("b", np.asarray(image.dataobj)[::-1].transpose(1, 0, 2), None),
    ):
        (tmp_path / name).mkdir()
        if affine is None:
            flip = np.diag([-1.0, 1, 1, 1])
            flip[0, 3] = image.shape[0] - 1
            affine = image.affine @ flip @ np.eye(4)[[1, 0, 2, 3]]
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(array), affine), tmp_path / name / "head.nii.gz")
    lines = list(predict_images(segmenter, [tmp_path / "a" / "head.nii.gz", tmp_path / "b"], tmp_path / "out"))
    files = sorted((tmp_path / "out").rglob("*.nii.gz"))
    assert [path.relative_to(tmp_path / "out").as_posix() for path in files] == [
        "a/head_pred.nii.gz",
        "b/head_pred.nii.gz",
    ]
    assert lines == [f"wrote {path}" for path in files]
    one, two = (nibabel.load(path) for path in files)
    for got, given in ((one, tmp_path / "a"), (two, tmp_path / "b")):
        given = nibabel.load(given / "head.nii.gz")
        assert got.shape == given.shape
        np.testing.assert_allclose(got.affine, given.affine, atol=1e-4)
    # the same anatomy, so the same mask once it is turned back
    back = np.asarray(two.dataobj).transpose(1, 0, 2)[::-1]
    assert (back == np.asarray(one.dataobj)).mean() > 0.995 and back.max() > 0


def test_a_second_call_does_not_predict_on_predictions(segmenter, sample, tmp_path):
    (tmp_path / sample.name).write_bytes(sample.read_bytes())
    for _ in range(2):
        list(predict_images(segmenter, [tmp_path], tmp_path / "out"))
        assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 1


def test_a_dicom_series(segmenter, tmp_path):
    scan = scan_patient(SITES["site_b"], 20)
    (tmp_path / "in").mkdir()
    write_dicom(
        tmp_path / "in" / "series", scan.image, scan.affine, patient_id="P20", protocol=SITES["site_b"].protocol
    )
    assert find_images([tmp_path / "in"]) == [tmp_path / "in" / "series"]
    list(predict_images(segmenter, [tmp_path / "in"], tmp_path / "out"))
    (path,) = (tmp_path / "out").rglob("*.nii.gz")
    mask = nibabel.load(path)
    assert sorted(mask.shape) == sorted(scan.image.shape)
    # the same place in the world: the ventricles' centre of mass against the truth's
    truth = np.argwhere(scan.label == 1).mean(axis=0)
    found = np.argwhere(np.asarray(mask.dataobj) == 1).mean(axis=0)
    where = [nibabel.affines.apply_affine(a, p) for a, p in ((scan.affine, truth), (mask.affine, found))]
    assert np.linalg.norm(where[0] - where[1]) < 10
    assert b"P20" not in path.read_bytes()


def test_classes_become_a_csv_with_names(packaged, tmp_path):
    bundle = packaged / "head_mr_slice_classification"
    sample = next((bundle / "sample").iterdir())
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "slice.png").write_bytes(sample.read_bytes())
    list(predict_images(bundle, [tmp_path / "a", tmp_path / "b"], tmp_path / "out"))
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert [row["image"] for row in rows] == ["a/slice.png", "b/slice.png"]
    for row in rows:
        scores = {name: float(row[f"p_{name}"]) for name in ("no lesion", "lesion")}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-4)
        assert row["prediction"] == max(scores, key=scores.__getitem__)


def test_png_masks_keep_the_pictures_size_and_side(tiny_set, tmp_path):
    data = tiny_set("segmentation", 2)
    bundle = tmp_path / "cells_segmentation"
    sites = {"source_site": "north", "target_site": "south"}
    new_bundle(bundle, data, size="small", batch_size=4, **sites)
    run = run_workflow(bundle, "pretrain", {"max_epochs": 12, "steps_per_epoch": 5, "val_interval": 4}, log=False)
    case = data.parent / "images" / "south_test_0.png"
    list(predict_images(bundle, [case], tmp_path / "out", run=run))
    (path,) = (tmp_path / "out").rglob("*.png")
    got, truth = np.asarray(Image.open(path)), np.asarray(Image.open(data.parent / "labels" / "south_test_0.png"))
    assert got.shape == truth.shape
    overlap = 2 * ((got > 0) & (truth > 0)).sum() / ((got > 0).sum() + (truth > 0).sum())
    assert overlap > 0.8, "the mask lies where the truth lies, unturned"


def test_refusals(segmenter, sample, tmp_path, tiny_set):
    with pytest.raises(InputError, match="no such file"):
        list(predict_images(segmenter, [tmp_path / "nothing"], tmp_path / "out"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        list(predict_images(segmenter, [tmp_path / "empty"], tmp_path / "out"))
    (tmp_path / "twin").mkdir()
    for name in ("x.nii.gz", "x.nii"):
        (tmp_path / "twin" / name).write_bytes(sample.read_bytes())
    with pytest.raises(InputError, match="written over.*rename one"):
        list(predict_images(segmenter, [tmp_path / "twin"], tmp_path / "out"))
    new_bundle(tmp_path / "fresh", tiny_set("regression", 3), source_site="north", target_site="south")
    with pytest.raises(InputError, match="no weights here; pretrain first"):
        list(predict_images(tmp_path / "fresh", [sample], tmp_path / "out"))
    assert not (tmp_path / "out").exists()
