"""Builders of sound files, which each test then damages in one way."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

AFFINE = np.array([[-0.9, 0.1, 0, 30], [0.1, 0.9, 0, -20], [0, 0, 2.5, 5], [0, 0, 0, 1.0]])
SHAPE = (12, 10, 8)


@pytest.fixture
def volume() -> np.ndarray:
    """12 x 10 x 8 int16 noise around a bright block; no symmetry, so a flipped axis shows."""
    array = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.int16)
    array[2:5, 3:8, 1:4] += 700
    return array


@pytest.fixture
def write_nifti(tmp_path: Path, volume: np.ndarray) -> Callable[..., Path]:
    """Writes ``volume`` (or ``array``) as NIfTI; ``edit(header)`` changes the header before writing."""

    def write(name: str = "scan.nii.gz", array: np.ndarray | None = None, affine: np.ndarray | None = None, edit=None):
        image = nib.Nifti1Image(volume if array is None else array, AFFINE if affine is None else affine)
        image.set_qform(image.affine, code=1)
        image.set_sform(image.affine, code=1)
        image.header.set_xyzt_units("mm", "sec")
        content = bytearray(image.to_bytes())
        if edit is not None:  # nibabel makes the header sound again when it writes, so change the bytes
            header = nib.Nifti1Header(bytes(content[:348]))
            edit(header)
            content[:348] = header.binaryblock
        path = tmp_path / name
        path.write_bytes(gzip.compress(bytes(content)) if name.endswith(".gz") else bytes(content))
        return path

    return write


def slice_dataset(pixels: np.ndarray, position: tuple, number: int, uids: dict[str, str]) -> FileDataset:
    """One MR slice (rows x columns, 16 bits) with planted identifiers."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientName, dataset.PatientID = "Zyxgrimm^Planted", "PLANTEDID4711"
    dataset.PatientBirthDate, dataset.InstitutionName = "19470229", "PLANTEDHOSPITAL"
    dataset.SeriesDescription, dataset.StudyDate, dataset.AccessionNumber = "PLANTEDSERIES", "20991231", "PLANTEDACC"
    dataset.AcquisitionTime = f"2359{50 + number:02d}" if number < 10 else f"0000{number:02d}"
    for keyword, value in uids.items():
        setattr(dataset, keyword, value)
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "MR", 3, number
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = list(position)
    dataset.PixelSpacing, dataset.SliceThickness = [0.8, 0.7], 5.0
    dataset.PixelData = pixels.astype("<i2").tobytes()
    return dataset


@pytest.fixture
def make_series(tmp_path: Path, volume: np.ndarray) -> Callable[..., Path]:
    """A folder of slices 2.5 mm apart; ``edit(dataset, index)`` may change it, or drop it (``False``)."""

    def make(folder: str = "series", edit: Callable[[Dataset, int], object] | None = None, array=None) -> Path:
        data = volume if array is None else array
        uids = {k: generate_uid() for k in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        for n in range(data.shape[2]):
            dataset = slice_dataset(data[:, :, n].T, (-10.0, -20.0, 30.0 + 2.5 * n), n + 1, uids)
            if edit is None or edit(dataset, n) is not False:
                # names in no order of space
                pydicom.dcmwrite(target / f"im{(n * 5) % data.shape[2]:03d}.dcm", dataset, enforce_file_format=True)
        return target

    return make
