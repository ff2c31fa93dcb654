"""The pixels of one DICOM file: complete, of a transfer syntax that can be decoded, rescaled, and of one polarity.

ITK decodes. It turns MONOCHROME1 into "high is bright" and applies RescaleSlope and RescaleIntercept. It gets 32-bit
data (RT dose) and 16-bit colour wrong or not at all: pydicom decodes those.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import itk
import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import generate_frames
from pydicom.uid import UID

from monai_transfer.data.readers.base import check_values
from monai_transfer.errors import InputError

__all__ = ["check_pixels", "number_of_frames", "read_pixels"]

NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
RLE = "1.2.840.10008.1.2.5"
JPEG = {f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91)}
"""What ITK's wheel decodes: JPEG baseline, extended and lossless, JPEG-LS, JPEG 2000; RLE and native beside them."""

ENHANCED = {f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2.1", "2.2", "4.1", "4.4", "130", "128.1")}
"""Enhanced and converted CT, MR and PET: the kinds whose per-frame rescaling ITK knows (tried)."""

GREYS = {"MONOCHROME1", "MONOCHROME2"}
COLOURS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "PALETTE COLOR"}


def number_of_frames(header: FileDataset, path: Path) -> int:
    """NumberOfFrames, 1 where it is absent; ``InputError`` where it is no positive number."""
    value = header.get("NumberOfFrames") or 1
    try:
        frames = int(str(value))
    except ValueError:
        frames = 0
    if frames < 1:
        raise InputError("NumberOfFrames is not a positive number", path=path, mend="export it again")
    return frames


def check_pixels(header: FileDataset, path: Path) -> int:
    """Verify that the file holds a whole image that can be decoded right; the number of its values (voxels x samples).

    Raises ``InputError`` for non-images, undecodable transfer syntaxes (by name), and too short or too long pixel data.
    """
    modality = str(header.get("Modality", "?"))
    if "FloatPixelData" in header or "DoubleFloatPixelData" in header:
        raise InputError("float pixel data, which cannot be decoded here", path=path, mend="convert it to NIfTI")
    if "PixelData" not in header:
        raise InputError(f"holds no image (modality {modality})", path=path, mend="name an image series")
    if "SegmentSequence" in header or header.get("BitsAllocated") == 1:
        raise InputError(
            "a DICOM segmentation, not an image", path=path, mend="convert it to a NIfTI label on its image's grid"
        )
    if "MOSAIC" in str(header.get("ImageType", "")):
        raise InputError(
            "a mosaic (the slices of a volume side by side in one picture)", path=path, mend="convert it with dcm2niix"
        )
    if "ModalityLUTSequence" in header:
        raise InputError("a modality lookup table, which cannot be applied here", path=path, mend="convert it to NIfTI")
    numbers = [_number(header, name, path) for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit")]
    rows, columns, bits, stored, high = numbers
    samples = int(header.get("SamplesPerPixel") or 1)
    photometric = str(header.get("PhotometricInterpretation", ""))
    if bits not in (8, 16, 32) or not 1 <= stored <= bits or high != stored - 1 or min(rows, columns) < 1:
        raise InputError(
            f"impossible pixel format (BitsAllocated {bits}, BitsStored {stored}, HighBit {high}, {columns} x {rows})",
            path=path,
            mend="export it again",
        )
    known = photometric in COLOURS if photometric == "PALETTE COLOR" or samples == 3 else photometric in GREYS
    if samples not in (1, 3) or not known:
        raise InputError(f"{samples} samples per pixel as {photometric or 'nothing declared'}", path=path)
    for name in ("RescaleSlope", "RescaleIntercept", "DoseGridScaling"):
        value = header.get(name)
        if value is not None and (not np.isfinite(float(value)) or (name != "RescaleIntercept" and float(value) == 0)):
            raise InputError(f"{name} is {value}", path=path, mend="export it again")
    frames = number_of_frames(header, path)
    values = rows * columns * samples * frames
    syntax = UID(str(header.file_meta.get("TransferSyntaxUID", "")))
    if syntax in NATIVE:
        expected = values * bits // 8
        if photometric == "YBR_FULL_422":
            expected = expected * 2 // 3
        _check_native(header, expected, path)
    elif syntax == RLE or syntax in JPEG:
        _check_encapsulated(header, frames, syntax, path)
    else:
        raise InputError(
            f"transfer syntax {syntax.name or 'not declared'!r} cannot be decoded here",
            path=path,
            mend="convert it to an uncompressed one, e.g. with dcmdjpeg, gdcmconv or dcmconv",
        )
    return values


def _number(header: FileDataset, name: str, path: Path) -> int:
    value = header.get(name)
    if not isinstance(value, int):
        raise InputError(f"{name} is missing or no number", path=path, mend="export it again")
    return value


def _check_native(header: FileDataset, expected: int, path: Path) -> None:
    element = header.get_item("PixelData")
    length = int(getattr(element, "length", None) or len(getattr(element, "value", b"") or b""))
    start = getattr(element, "value_tell", None) or getattr(element, "file_tell", None)
    if start is not None and str(header.file_meta.TransferSyntaxUID) != "1.2.840.10008.1.2.1.99":
        length = min(length, path.stat().st_size - int(start))
    if length < expected or length > expected + expected % 2:
        what = "cut off" if length < expected else "longer than its header says"
        raise InputError(
            f"pixel data is {what} ({length} bytes where {expected} are due)",
            path=path,
            mend="copy or export the file again",
        )


def _check_encapsulated(header: FileDataset, frames: int, syntax: UID, path: Path) -> None:
    try:
        parts = list(generate_frames(header.PixelData, number_of_frames=frames))
    except Exception as error:  # struct, value and EOF errors by where the damage lies
        raise InputError(f"compressed pixel data is damaged or cut off ({syntax.name})", path=path) from error
    if len(parts) != frames:
        raise InputError(f"{len(parts)} compressed frames where {frames} are due", path=path, mend="copy it again")
    if syntax in JPEG:
        for part in parts:
            # every JPEG family ends with the marker FFD9, after the last start of a scan (FFDA) or of tile data (FF93)
            if part.rfind(b"\xff\xd9") < max(part.rfind(b"\xff\xda"), part.rfind(b"\xff\x93")):
                raise InputError(f"a compressed frame is cut off ({syntax.name})", path=path, mend="copy it again")


def read_pixels(header: FileDataset, path: Path) -> np.ndarray:
    """Decoded and rescaled values, frames x rows x columns [x 3]; MONOCHROME1 turned so that high is bright."""
    bits, samples = int(header.BitsAllocated), int(header.get("SamplesPerPixel") or 1)
    transforms = _frame_transforms(header)
    if transforms is not None:
        array = _stored_values(header, path)
        array = array * transforms[:, 0, None, None] + transforms[:, 1, None, None]
    elif bits == 32 or (bits == 16 and samples == 3):
        array = _read_with_pydicom(header, path)
    else:
        array = _read_with_itk(path, str(header.file_meta.TransferSyntaxUID))
    colour = samples == 3 or header.PhotometricInterpretation == "PALETTE COLOR"
    shape = (number_of_frames(header, path), int(header.Rows), int(header.Columns), *((3,) if colour else ()))
    if array.shape != shape:
        raise InputError(f"decodes to shape {array.shape} where {shape} is declared", path=path, mend="export it again")
    check_values(array, path)
    return array


def _read_with_itk(path: Path, syntax: str) -> np.ndarray:
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return itk.array_from_image(itk.imread(str(path), imageio=itk.GDCMImageIO.New()))
    except Exception as error:  # ITK raises RuntimeError, KeyError and TypeError alike
        raise InputError(
            f"its pixels cannot be decoded ({UID(syntax).name})", path=path, mend="convert it to an uncompressed one"
        ) from error


def _frame_transforms(header: FileDataset) -> np.ndarray | None:
    """Slope and intercept of each frame (frames x 2) of an enhanced multi-frame image, where ITK would get them wrong.

    ITK applies the first frame's to all frames, and none for some kinds of image. ``None``: nothing is to be done.
    """
    groups = header.get("PerFrameFunctionalGroupsSequence")
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    name = "PixelValueTransformationSequence"
    if not groups or not (name in shared or any(name in group for group in groups)):
        return None
    rows = []
    for group in groups:
        item = (group.get(name) or shared.get(name) or [Dataset()])[0]
        rows.append([float(item.get("RescaleSlope", 1)), float(item.get("RescaleIntercept", 0))])
    transforms = np.array(rows)
    itk_knows = str(header.get("SOPClassUID")) in ENHANCED and np.all(transforms == transforms[0])
    return None if itk_knows else transforms


def _stored_values(header: FileDataset, path: Path) -> np.ndarray:
    """Decoded with pydicom and not rescaled; frames x rows x columns [x 3]."""
    if str(header.file_meta.TransferSyntaxUID) not in NATIVE | {RLE} or str(header.PhotometricInterpretation) not in (
        "RGB",
        "MONOCHROME2",
    ):
        raise InputError(
            f"{header.BitsAllocated}-bit {header.PhotometricInterpretation} in "
            f"{UID(header.file_meta.TransferSyntaxUID).name} cannot be decoded here",
            path=path,
            mend="convert it to an uncompressed one",
        )
    try:
        stored: Any = header.pixel_array
    except Exception as error:  # pydicom's decoders raise many kinds
        raise InputError(f"its pixels cannot be decoded ({type(error).__name__})", path=path) from error
    array = np.asarray(stored).astype(stored.dtype.newbyteorder("="), copy=False)
    colours = int(header.get("SamplesPerPixel") or 1) > 1
    return array[None] if array.ndim == (3 if colours else 2) else array


def _read_with_pydicom(header: FileDataset, path: Path) -> np.ndarray:
    array = _stored_values(header, path)
    slope = float(header.get("RescaleSlope") or 1) * float(header.get("DoseGridScaling") or 1)
    intercept = float(header.get("RescaleIntercept") or 0)
    return array if slope == 1 and intercept == 0 else array * slope + intercept
