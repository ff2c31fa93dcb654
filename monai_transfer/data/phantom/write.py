"""Phantoms as hospitals keep them: NIfTI with right headers, a DICOM series, 8-bit PNG slices."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy.ndimage import map_coordinates

from monai_transfer.errors import InputError

from .physics import Protocol

__all__ = ["axial_slices", "write_dicom", "write_nifti", "write_png"]

UID_PREFIX = "2.25."  # UIDs made from a number need no registered root
SEQUENCES = {  # ScanningSequence, SequenceVariant
    "spin_echo": ("SE", "NONE"),
    "spoiled_gradient_echo": ("GR", "SP"),
    "inversion_recovery": ("IR", "NONE"),
}


def write_nifti(path: str | Path, volume: np.ndarray, affine: np.ndarray) -> None:
    """Write a 3D volume as NIfTI-1; qform and sform are equal (code 1, scanner), units are mm and seconds.

    Args:
        path: of the ``.nii`` or ``.nii.gz`` file.
        volume: 3D.
        affine: 4 x 4, voxel index to RAS millimetres.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "scan.nii.gz"
    >>> write_nifti(path, np.zeros((2, 2, 2), np.int16), np.diag([1.0, 1.0, 3.0, 1.0]))
    >>> [float(mm) for mm in nib.load(path).header.get_zooms()]
    [1.0, 1.0, 3.0]
    """
    image = nib.Nifti1Image(volume, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, Path(path))


def write_dicom(
    folder: str | Path, volume: np.ndarray, affine: np.ndarray, *, patient_id: str, protocol: Protocol
) -> None:
    """Write an int16 volume as one MR series, a file per index of the last axis; no date and no name of a person.

    Args:
        folder: is made; must not hold other files.
        volume: (columns, rows, slices), int16.
        affine: voxel index to RAS millimetres (nibabel's convention); its axes must be right-handed, since a DICOM
            series has no other way to tell in which order its slices follow.
        patient_id: for example "PHANTOM-B001"; UIDs follow from it, so equal calls give equal files.
        protocol: fills the sequence attributes.

    Raises:
        InputError: volume or affine cannot be stored as such a series.

    >>> import tempfile
    >>> from monai_transfer.data.phantom.sites import SITES
    >>> folder, volume = Path(tempfile.mkdtemp()) / "series", np.zeros((6, 4, 3), np.int16)
    >>> write_dicom(folder, volume, np.diag([1, 1, 2, 1.0]), patient_id="P1", protocol=SITES["site_a"].protocol)
    >>> [path.name for path in sorted(folder.iterdir())]  # a file per slice
    ['0001.dcm', '0002.dcm', '0003.dcm']
    """
    folder = Path(folder)
    if volume.dtype != np.int16 or volume.ndim != 3:
        raise InputError(
            f"expected a 3D int16 volume, got {volume.ndim}D {volume.dtype}",
            path=folder,
            hint="round the intensities to whole numbers: volume.astype(np.int16)",
        )
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / spacing
    if np.linalg.det(directions) < 0.99:
        raise InputError("its axes are not right-handed and orthogonal", path=folder, hint="flip one axis first")
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(volume.shape[2]):
        dataset = _header(patient_id, protocol, index)
        dataset.Rows, dataset.Columns = volume.shape[1], volume.shape[0]
        dataset.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
        dataset.SliceThickness = dataset.SpacingBetweenSlices = _decimal(spacing[2])
        dataset.ImageOrientationPatient = [_decimal(v) for v in (*directions[:, 0], *directions[:, 1])]
        position = lps[:3, 3] + index * lps[:3, 2]
        dataset.ImagePositionPatient = [_decimal(v) for v in position]
        dataset.SliceLocation = _decimal(position @ directions[:, 2])
        dataset.PixelData = np.ascontiguousarray(volume[:, :, index].T, dtype="<i2").tobytes()
        dataset.save_as(folder / f"{index + 1:04d}.dcm", enforce_file_format=True)


def _header(patient_id: str, protocol: Protocol, index: int) -> FileDataset:
    """Everything but geometry and pixels: the mandatory attributes of an MR image."""
    uid = {level: generate_uid(UID_PREFIX, [patient_id, level]) for level in ("study", "series", "frame")}
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(UID_PREFIX, [patient_id, "series", str(index)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = generate_uid(UID_PREFIX, ["monai_transfer phantom"])
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["DERIVED", "PRIMARY", "OTHER"]
    dataset.DerivationDescription = "Simulated phantom, no human subject"
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientName = dataset.PatientID = patient_id
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid["study"], uid["series"]
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = uid["frame"], ""
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, index + 1
    dataset.SeriesDescription, dataset.Modality, dataset.Manufacturer = protocol.sequence, "MR", "monai_transfer"
    dataset.PatientPosition, dataset.MRAcquisitionType = "HFS", "3D"
    dataset.ScanOptions = "FS" if protocol.fat_saturation else ""
    dataset.ScanningSequence, dataset.SequenceVariant = SEQUENCES[protocol.sequence]
    dataset.RepetitionTime, dataset.EchoTime, dataset.EchoTrainLength = protocol.tr, protocol.te, 1
    if protocol.sequence == "spoiled_gradient_echo":
        dataset.FlipAngle = protocol.flip
    if protocol.sequence == "inversion_recovery":
        dataset.InversionTime = protocol.ti
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    return dataset


def _decimal(value: float) -> str:
    """A DICOM decimal string (at most 16 characters) without a negative zero."""
    return f"{round(float(value), 6) + 0.0:.10g}"


def axial_slices(volume: np.ndarray, affine: np.ndarray, heights_mm: np.ndarray) -> np.ndarray:
    """Axial slices on a common grid: 64 x 64 pixels of 3 mm about the scanner's centre, seen as radiologists do.

    Rows run from anterior to posterior, columns from the patient's right to left. Brightness 255 is the volume's
    99.8th percentile.

    Args:
        volume: 3D image.
        affine: voxel index to RAS millimetres.
        heights_mm: positions along the superior axis.

    Returns:
        ``uint8`` array of shape (len(heights_mm), 64, 64).

    >>> volume, affine = np.ones((50, 50, 50), np.float32), np.diag([4.0, 4.0, 4.0, 1.0])
    >>> affine[:3, 3] = -98.0
    >>> slices = axial_slices(volume, affine, np.array([-10.0, 10.0]))
    >>> slices.shape, int(slices[0, 32, 32])  # an even volume is as bright as its 99.8th percentile
    ((2, 64, 64), 255)
    """
    steps = (np.arange(64) - 31.5) * 3.0
    z, y, x = np.meshgrid(heights_mm, -steps, -steps, indexing="ij")
    points = np.stack([x, y, z, np.ones_like(x)]).reshape(4, -1)
    index = (np.linalg.inv(affine) @ points)[:3]
    values = map_coordinates(volume.astype(np.float32), index, order=1, mode="constant").reshape(x.shape)
    return np.clip(np.rint(values / np.percentile(volume, 99.8) * 255), 0, 255).astype(np.uint8)


def write_png(path: str | Path, pixels: np.ndarray) -> None:
    """Write a 2D uint8 array (rows, columns) as a grey-scale PNG.

    Args:
        path: of the ``.png`` file.
        pixels: (rows, columns), uint8.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "slice.png"
    >>> write_png(path, np.array([[0, 128, 255]], np.uint8))
    >>> np.asarray(Image.open(path)).tolist()
    [[0, 128, 255]]
    """
    Image.fromarray(pixels).save(path)
