"""DICOM SEG of a prediction: on the slices it was drawn on, by two readers; what cannot be referred to is refused."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from monai_transfer.data.phantom.sites import SITES, scan_patient
from monai_transfer.data.phantom.write import write_dicom
from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError
from monai_transfer.manifest.dicom_grid import Grid
from monai_transfer.manifest.dicom_masks import read_structures, referenced_series
from monai_transfer.predict.dicom_seg import write_dicom_seg
from monai_transfer.predict.images import predict_images

NAMES = {0: "background", 1: "ventricle", 2: "lesion"}


@pytest.fixture
def series(tmp_path):
    scan = scan_patient(SITES["site_b"], 20)
    write_dicom(tmp_path / "series", scan.image, scan.affine, patient_id="P20", protocol=SITES["site_b"].protocol)
    return tmp_path / "series"


def label_map(series: Path, target: Path) -> np.ndarray:
    """A mask without any symmetry, on the grid that the series is read on."""
    volume = SafeReader().read_volume(series)
    shape = volume.spatial_shape
    mask = np.zeros(shape, np.uint8)
    mask[1:7, 2:4, 0] = 1
    mask[3:5, 5:11, shape[2] // 2] = 2
    mask[0, 0, shape[2] - 1] = 1
    nibabel.save(nibabel.Nifti1Image(mask, volume.affine), target)
    return mask


def frames(path: Path, files: list[Path]) -> dict[str, np.ndarray]:
    return {name: drawing.mask for name, drawing in read_structures(path, Grid.read(files)).items()}


def same(got: dict[str, np.ndarray], mask: np.ndarray, affine: np.ndarray, grid: Grid) -> None:
    """Compare by place: each grid has its own order of slices."""
    for number, name in ((1, "ventricle"), (2, "lesion")):
        world = nibabel.affines.apply_affine(affine, np.argwhere(mask == number)) * [-1, -1, 1]
        index = np.round(grid.voxels(world)).astype(int)
        due = np.zeros_like(got[name])
        due[tuple(index.T)] = True
        assert np.array_equal(got[name], due), name


def test_the_mask_lies_where_it_was_predicted(series, tmp_path):
    mask = label_map(series, tmp_path / "mask.nii.gz")
    files = sorted(series.iterdir())
    shuffled = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    path = write_dicom_seg(tmp_path / "mask.nii.gz", shuffled, tmp_path / "out" / "seg.dcm", NAMES, model="m")
    same(frames(path, files), mask, nibabel.load(tmp_path / "mask.nii.gz").affine, Grid.read(files))
    first = pydicom.dcmread(files[0])
    assert referenced_series(path) == {str(first.SeriesInstanceUID)}
    made = pydicom.dcmread(path)
    assert (made.PatientID, made.StudyInstanceUID) == ("P20", first.StudyInstanceUID)
    assert made.FrameOfReferenceUID == first.FrameOfReferenceUID
    instances = made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {i.ReferencedSOPInstanceUID for i in instances} == {pydicom.dcmread(f).SOPInstanceUID for f in files}
    assert [s.SegmentLabel for s in made.SegmentSequence] == ["ventricle", "lesion"]
    assert {s.SegmentAlgorithmType for s in made.SegmentSequence} == {"AUTOMATIC"}


def test_highdicom_reads_it_back(series, tmp_path):
    hd = pytest.importorskip("highdicom")
    mask = label_map(series, tmp_path / "mask.nii.gz")
    files = sorted(series.iterdir())
    path = write_dicom_seg(tmp_path / "mask.nii.gz", files, tmp_path / "seg.dcm", NAMES)
    volume = hd.seg.segread(path).get_volume(combine_segments=True)
    affine = np.diag([-1, -1, 1, 1]) @ volume.affine  # LPS to RAS
    at = nibabel.affines.apply_affine(
        np.linalg.inv(nibabel.load(tmp_path / "mask.nii.gz").affine) @ affine, np.argwhere(volume.array > 0)
    )
    values = volume.array[volume.array > 0]
    index = np.round(at).astype(int)
    assert len(index) == (mask > 0).sum()
    assert np.array_equal(mask[tuple(index.T)], values)


def test_the_same_prediction_has_the_same_uid_and_another_another(series, tmp_path):
    mask = label_map(series, tmp_path / "mask.nii.gz")
    files = sorted(series.iterdir())

    def uid(model: str) -> str:
        path = write_dicom_seg(tmp_path / "mask.nii.gz", files, tmp_path / "seg.dcm", NAMES, model=model)
        return str(pydicom.dcmread(path).SOPInstanceUID)

    one = uid("m")
    assert uid("m") == one != uid("other")
    affine = nibabel.load(tmp_path / "mask.nii.gz").affine
    nibabel.save(nibabel.Nifti1Image(np.zeros_like(mask), affine), tmp_path / "mask.nii.gz")
    assert uid("m") != one
    assert not any(v.any() for v in frames(tmp_path / "seg.dcm", files).values()), "nothing found is written as nothing"


def test_predict_writes_the_nifti_mask_as_dicom(packaged, series, tmp_path, caplog):
    bundle = packaged / "head_mr_segmentation"
    (nifti,) = predict_images(bundle, [series], tmp_path / "nifti").written
    with caplog.at_level(logging.INFO):
        (seg,) = predict_images(bundle, [series], tmp_path / "seg", format="dicom-seg").written
    assert "P20" not in caplog.text and str(pydicom.dcmread(seg).StudyInstanceUID) not in caplog.text
    assert seg.name == "series_pred.dcm" and [p.name for p in (tmp_path / "seg").iterdir()] == [seg.name]
    image, files = nibabel.load(nifti), sorted(series.iterdir())
    mask = np.asarray(image.dataobj)
    assert (mask == 1).any()
    same(frames(seg, files), mask, image.affine, Grid.read(files))


def test_refusals(packaged, series, tmp_path, monkeypatch):
    mask = label_map(series, tmp_path / "mask.nii.gz")
    files = sorted(series.iterdir())
    moved = nibabel.load(tmp_path / "mask.nii.gz").affine.copy()
    moved[0, 3] += 3
    nibabel.save(nibabel.Nifti1Image(mask, moved), tmp_path / "moved.nii.gz")
    with pytest.raises(InputError, match="does not lie on the slices; use --format nifti"):
        write_dicom_seg(tmp_path / "moved.nii.gz", files, tmp_path / "seg.dcm", NAMES)
    with pytest.raises(InputError, match="does not lie on the slices"):
        write_dicom_seg(tmp_path / "mask.nii.gz", files[1:], tmp_path / "seg.dcm", NAMES)
    sample = next((packaged / "head_mr_segmentation" / "sample").iterdir())
    with pytest.raises(InputError, match=f"{sample.name}: is no DICOM image"):
        predict_images(packaged / "head_mr_segmentation", [sample], tmp_path / "out", format="dicom-seg")
    with pytest.raises(InputError, match="predicts no masks"):
        predict_images(packaged / "head_mr_slice_classification", [series], tmp_path / "out", format="dicom-seg")
    monkeypatch.setitem(sys.modules, "highdicom", None)  # as where it is not installed
    with pytest.raises(InputError, match=r"needs highdicom; pip install 'monai-transfer\[dicom\]'"):
        write_dicom_seg(tmp_path / "mask.nii.gz", files, tmp_path / "seg.dcm", NAMES)
    assert not (tmp_path / "seg.dcm").exists()


def test_real_series(packaged, real_data, tmp_path):
    """A public T2 series, stored shuffled, and a crop whose headers lack what the standard wants."""
    found = []
    for name in ("T2reg", "HippoCrop"):
        folder = real_data / "dicom" / "series" / name
        if not folder.is_dir():
            pytest.skip(f"no dicom/series/{name} in the real data")
        volume = SafeReader().read_volume(folder)
        mask = (volume.array > np.quantile(volume.array, 0.9)).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(mask, volume.affine), tmp_path / "mask.nii.gz")
        files = sorted(folder.iterdir())
        path = write_dicom_seg(tmp_path / "mask.nii.gz", files, tmp_path / f"{name}.dcm", {0: "rest", 1: "bright"})
        grid = Grid.read(files)
        (got,) = frames(path, files).values()
        world = nibabel.affines.apply_affine(volume.affine, np.argwhere(mask)) * [-1, -1, 1]
        due = np.zeros_like(got)
        due[tuple(np.round(grid.voxels(world)).astype(int).T)] = True
        found.append(np.array_equal(got, due) and got.sum() == mask.sum())
    assert found == [True, True]


@pytest.mark.parametrize(
    ("values", "segments"),
    [
        ((128, 255), {"ventricle": (128,), "lesion": (255,)}),
        ((1000, 4), {"ventricle": (1000,), "lesion": (4,)}),
    ],
)
def test_values_with_gaps_become_segments_from_one_on(series, tmp_path, values, segments):
    mask = label_map(series, tmp_path / "mask.nii.gz")
    image = nibabel.load(tmp_path / "mask.nii.gz")
    table = np.array([0, *values], dtype=np.uint16)
    nibabel.save(nibabel.Nifti1Image(table[mask], image.affine), tmp_path / "values.nii.gz")
    files = sorted(series.iterdir())
    path = write_dicom_seg(tmp_path / "values.nii.gz", files, tmp_path / "a.dcm", NAMES, segments=segments)
    found = pydicom.dcmread(path)
    assert [(s.SegmentNumber, s.SegmentLabel) for s in found.SegmentSequence] == [(1, "ventricle"), (2, "lesion")]
    same(frames(path, files), mask, image.affine, Grid.read(files))
    with pytest.raises(InputError, match="holds the value .*, which is no class's"):
        write_dicom_seg(tmp_path / "values.nii.gz", files, tmp_path / "b.dcm", NAMES)


def test_regions_become_segments_that_overlap(series, tmp_path):
    mask = label_map(series, tmp_path / "mask.nii.gz")
    image, files = nibabel.load(tmp_path / "mask.nii.gz"), sorted(series.iterdir())
    segments = {"whole": (1, 2), "core": (2,)}
    path = write_dicom_seg(tmp_path / "mask.nii.gz", files, tmp_path / "a.dcm", NAMES, segments=segments)
    found = frames(path, files)
    assert found["whole"].sum() == (mask > 0).sum() and found["core"].sum() == (mask == 2).sum()
    assert (found["whole"] & found["core"]).sum() == found["core"].sum()
    assert image.shape == mask.shape
