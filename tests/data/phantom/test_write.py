"""Files as hospitals keep them: right headers, one geometry, and DICOM equal to NIfTI."""

from __future__ import annotations

import filecmp

import nibabel as nib
import numpy as np
import pydicom
import pytest
from monai.data import ITKReader
from monai.transforms import LoadImage
from PIL import Image

from monai_transfer.data.phantom import SITES, scan_patient
from monai_transfer.data.phantom.write import axial_slices, write_dicom, write_nifti, write_png
from monai_transfer.errors import InputError


@pytest.fixture(scope="module", params=list(SITES))
def scanned(request):
    return SITES[request.param], scan_patient(SITES[request.param], 4)


def test_nifti_header(scanned, tmp_path):
    site, scan = scanned
    write_nifti(tmp_path / "image.nii.gz", scan.image, scan.affine)
    image = nib.load(tmp_path / "image.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert image.header.get_xyzt_units() == ("mm", "sec")
    (qform, qcode), (sform, scode) = image.get_qform(coded=True), image.get_sform(coded=True)
    assert qcode == scode == 1
    assert np.allclose(qform, sform, atol=1e-5)
    assert np.allclose(image.affine, scan.affine, atol=1e-5)
    assert np.array_equal(np.asanyarray(image.dataobj), scan.image)


@pytest.mark.parametrize("reader", ["ITKReader", None])
def test_dicom_series_equals_the_nifti_of_the_same_case(scanned, reader, tmp_path):
    """Through ITK, and through whatever MONAI chooses by itself for a folder."""
    site, scan = scanned
    write_nifti(tmp_path / "image.nii.gz", scan.image, scan.affine)
    write_dicom(tmp_path / "series", scan.image, scan.affine, patient_id="PHANTOM-X1", protocol=site.protocol)
    series = LoadImage(reader=reader)(tmp_path / "series")
    nifti = LoadImage(reader="NibabelReader")(tmp_path / "image.nii.gz")
    assert series.shape == nifti.shape
    assert np.array_equal(series.numpy(), nifti.numpy())
    assert np.allclose(series.affine, nifti.affine, atol=1e-4)


def test_a_folder_holds_exactly_one_valid_series(scanned, tmp_path):
    site, scan = scanned
    write_dicom(tmp_path / "series", scan.image, scan.affine, patient_id="PHANTOM-X1", protocol=site.protocol)
    files = sorted((tmp_path / "series").iterdir())
    slices = [pydicom.dcmread(path) for path in files]
    assert len(files) == scan.image.shape[2]
    assert len({s.SeriesInstanceUID for s in slices}) == len({s.StudyInstanceUID for s in slices}) == 1
    assert len({s.SOPInstanceUID for s in slices}) == len(slices)
    assert all(s.SOPInstanceUID == s.file_meta.MediaStorageSOPInstanceUID for s in slices)
    assert all(s.SOPInstanceUID.is_valid and s.SeriesInstanceUID.is_valid for s in slices)
    first = slices[0]
    assert first.PatientID == "PHANTOM-X1"
    assert first.RepetitionTime == site.protocol.tr
    assert first.FlipAngle == site.protocol.flip
    assert not (first.StudyDate or first.PatientBirthDate)
    assert (first.get("ScanOptions") == "FS") == (site.protocol.fat_saturation > 0)
    step = np.diff([s.ImagePositionPatient for s in slices], axis=0)
    assert np.linalg.norm(step, axis=1) == pytest.approx(first.SliceThickness)
    itk_image = ITKReader().read(str(tmp_path / "series"))
    assert tuple(itk_image.GetSpacing()) == pytest.approx(nib.affines.voxel_sizes(scan.affine))


def test_equal_calls_write_equal_files(scanned, tmp_path):
    site, scan = scanned
    for name in ("one", "two"):
        write_dicom(tmp_path / name / "s", scan.image, scan.affine, patient_id="PHANTOM-X1", protocol=site.protocol)
        write_nifti(tmp_path / name / "image.nii.gz", scan.image, scan.affine)
    names = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    same, different, failed = filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", names, shallow=False)
    assert len(same) == scan.image.shape[2] + 1
    assert not different
    assert not failed


def test_left_handed_or_float_volumes_are_refused(tmp_path):
    protocol = SITES["site_a"].protocol
    volume = np.zeros((4, 5, 6), np.int16)
    with pytest.raises(InputError, match="right-handed"):
        write_dicom(tmp_path, volume, np.diag([-2.0, 2.0, 2.0, 1.0]), patient_id="PHANTOM-X", protocol=protocol)
    with pytest.raises(InputError, match="int16"):
        write_dicom(tmp_path, volume.astype(float), np.eye(4), patient_id="PHANTOM-X", protocol=protocol)
    assert not list(tmp_path.iterdir())


def test_slices_of_every_site_share_one_grid(tmp_path):
    """A bar placed by millimetres comes out at the same pixels whatever the axes of the volume."""
    for name, site in SITES.items():
        scan = scan_patient(site, 1)
        points = np.indices(scan.image.shape).reshape(3, -1)
        x, y, z = (scan.affine[:3, :3] @ points + scan.affine[:3, 3:]).reshape(3, *scan.image.shape)
        bar = ((x > 30) & (y > -20) & (y < 20) & (z < 20)).astype(np.int16) * 500  # patient's left is x < 0
        low, high = axial_slices(bar, scan.affine, np.array([0.0, 45.0]))
        assert low.shape == (64, 64)
        assert low.dtype == np.uint8
        assert high.max() == 0, name
        rows, columns = np.nonzero(low > 127)
        assert columns.max() < 22  # patient's right lies on the left of the picture
        assert abs(rows.mean() - 31.5) < 1.0
        write_png(tmp_path / "slice.png", low)
        assert np.array_equal(np.array(Image.open(tmp_path / "slice.png")), low)


def test_rows_run_from_anterior_to_posterior():
    site = SITES["site_b"]
    scan = scan_patient(site, 1)
    points = np.indices(scan.image.shape).reshape(3, -1)
    y = (scan.affine[:3, :3] @ points + scan.affine[:3, 3:])[1].reshape(scan.image.shape)
    front = axial_slices((y > 40).astype(np.int16) * 500, scan.affine, np.array([0.0]))[0]
    assert front[:18, 20:44].min() >= 0
    assert front[10, 32] == 255
    assert front[50, 32] == 0
