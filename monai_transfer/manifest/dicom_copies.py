"""Copies of DICOM files that hold nothing of the patient: an allow-list of technical elements, all else is dropped.

Needed where a series shares its folder with another (a manifest's image is a folder with exactly one series), and where
the path itself holds a patient's id or name, which a manifest may not.
"""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, SecondaryCaptureImageStorage

from monai_transfer.errors import InputError
from monai_transfer.manifest.layouts.base import derived_path
from monai_transfer.manifest.pseudonyms import Pseudonyms

__all__ = ["copy_series"]

_KEPT = frozenset(
    pydicom.datadict.tag_for_keyword(keyword)
    for keyword in (
        *("SOPClassUID", "Modality", "ImageType", "Manufacturer", "ManufacturerModelName", "SliceThickness"),
        *("SpacingBetweenSlices", "GantryDetectorTilt", "KVP", "ConvolutionKernel", "MagneticFieldStrength"),
        *("EchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "ImagerPixelSpacing", "PatientPosition"),
        *("ViewPosition", "InstanceNumber", "SeriesNumber", "AcquisitionNumber", "ImagePositionPatient"),
        *("ImageOrientationPatient", "SliceLocation", "Units", "DecayCorrection", "PresentationLUTShape"),
        *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PlanePositionSequence"),
        *("PlaneOrientationSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence"),
        *("FrameVOILUTSequence", "DimensionIndexValues", "FrameContentSequence", "StackID", "InStackPositionNumber"),
    )
)
_PIXELS = (0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00009, 0x7FE00010)
_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")


def copy_series(files: list[Path], folder: Path, pseudonyms: Pseudonyms) -> list[Path]:
    """Write each file as ``folder/0001.dcm, ...`` with technical elements and pixels only; returns the copies.

    Pixels stay as they are stored (compressed or not). UIDs are replaced by pseudonyms, the same for the same UID.

    Raises:
        InputError: a file cannot be read.
    """
    copies = []
    for number, path in enumerate(files, start=1):
        try:
            with pydicom.config.disable_value_validation():
                dataset = pydicom.dcmread(path)
                meta = FileMetaDataset()
                meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
                uids = {key: pseudonyms.uid(str(dataset.get(key))) for key in _UIDS if dataset.get(key)}
                _prune(dataset)
                for key, uid in uids.items():
                    setattr(dataset, key, uid)
                meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID") or SecondaryCaptureImageStorage
                meta.MediaStorageSOPInstanceUID = UID(uids.get("SOPInstanceUID") or pseudonyms.uid(path.name))
                dataset.file_meta = meta
                dataset.preamble = b"\0" * 128
                target = folder / f"{number:04d}.dcm"
                with derived_path(target) as temporary:
                    dataset.save_as(temporary, enforce_file_format=True)
        except Exception as error:  # pydicom raises many kinds for broken files
            raise InputError(
                f"cannot be copied ({type(error).__name__})", path=path, hint="copy the series again, or take it out"
            ) from None
        copies.append(target)
    return copies


def _prune(dataset: pydicom.Dataset) -> None:
    for tag in list(dataset.keys()):
        vr = dataset[tag].VR
        # The whole group 0028 describes pixels; its texts and UIDs are free-form and dropped.
        pixel = tag >> 16 == 0x0028 and vr not in ("LO", "LT", "UT", "UI", "PN", "UN")
        if not (pixel or tag in _KEPT or tag in _PIXELS):
            del dataset[tag]
        elif vr == "SQ":
            for item in dataset[tag].value:
                _prune(item)
