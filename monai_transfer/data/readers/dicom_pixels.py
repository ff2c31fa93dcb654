"""Whether one DICOM file holds a whole image of a kind that can be decoded right, told before a pixel is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset
from pydicom.encaps import generate_frames
from pydicom.uid import UID

from monai_transfer.data.readers.dicom_streams import check_stream
from monai_transfer.errors import InputError

__all__ = ["JPEG", "NATIVE", "RLE", "check_pixels", "number_of_frames"]

NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
RLE = "1.2.840.10008.1.2.5"
JPEG = {f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91)}
"""What ITK's wheel decodes: JPEG baseline, extended and lossless, JPEG-LS, JPEG 2000; RLE and native beside them."""

GREYS = {"MONOCHROME1", "MONOCHROME2"}
COLOURS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "PALETTE COLOR"}


def number_of_frames(header: FileDataset, path: Path) -> int:
    """NumberOfFrames, 1 where it is absent.

    Args:
        header: of the file.
        path: named in the error.

    Raises:
        InputError: it is no positive number.

    >>> header = FileDataset("a.dcm", {})
    >>> one = number_of_frames(header, Path("a.dcm"))
    >>> header.NumberOfFrames = 12
    >>> one, number_of_frames(header, Path("a.dcm"))
    (1, 12)
    """
    value = header.get("NumberOfFrames") or 1
    try:
        frames = int(str(value))
    except ValueError:
        frames = 0
    if frames < 1:
        raise InputError("NumberOfFrames is not a positive number", path=path, hint="export it again")
    return frames


def check_pixels(header: FileDataset, path: Path) -> int:
    """Verify that the file holds a whole image that can be decoded right; the number of its values (voxels x samples).

    Args:
        header: of ``read_headers``.
        path: the file.

    Raises:
        InputError: it holds no image, is of a transfer syntax that cannot be decoded (named), or its pixel data are too
            short or too long.

    A structured report in a folder of images is said to be none:

    >>> header = FileDataset("report.dcm", {})
    >>> header.Modality = "SR"
    >>> try:
    ...     check_pixels(header, Path("report.dcm"))
    ... except InputError as error:
    ...     print(error.fault)
    holds no image (modality SR)
    """
    modality = str(header.get("Modality", "?"))
    if "FloatPixelData" in header or "DoubleFloatPixelData" in header:
        raise InputError("float pixel data, which cannot be decoded here", path=path, hint="convert it to NIfTI")
    if "PixelData" not in header:
        raise InputError(f"holds no image (modality {modality})", path=path, hint="name an image series")
    if "SegmentSequence" in header or header.get("BitsAllocated") == 1:
        raise InputError(
            "a DICOM segmentation, not an image", path=path, hint="convert it to a NIfTI label on its image's grid"
        )
    if "MOSAIC" in str(header.get("ImageType", "")):
        raise InputError(
            "a mosaic (the slices of a volume side by side in one picture)", path=path, hint="convert it with dcm2niix"
        )
    if header.get("PhotometricInterpretation") == "PALETTE COLOR" and not any(
        all(f"{kind}{colour}PaletteColorLookupTableData" in header for colour in ("Red", "Green", "Blue"))
        for kind in ("", "Segmented")
    ):
        raise InputError("a palette image without its palette", path=path, hint="export it again")
    if header.get("PhotometricInterpretation") == "MONOCHROME1" and header.get("BitsAllocated") == 32:
        raise InputError(
            "32 bits of MONOCHROME1, which float32 cannot hold", path=path, hint="export it as MONOCHROME2"
        )
    if "ModalityLUTSequence" in header:
        raise InputError("a modality lookup table, which cannot be applied here", path=path, hint="convert it to NIfTI")
    names = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel", "PixelRepresentation")
    rows, columns, bits, stored, high, samples, sign = (_number(header, name, path) for name in names)
    if samples == 3:
        _number(header, "PlanarConfiguration", path)
    photometric = str(header.get("PhotometricInterpretation", ""))
    if (
        bits not in (8, 16, 32)
        or not 1 <= stored <= bits
        or high != stored - 1
        or min(rows, columns) < 1
        or sign not in (0, 1)
    ):
        raise InputError(
            f"impossible pixel format (BitsAllocated {bits}, BitsStored {stored}, HighBit {high}, PixelRepresentation "
            f"{sign}, {columns} x {rows})",
            path=path,
            hint="export it again",
        )
    known = photometric in COLOURS if photometric == "PALETTE COLOR" or samples == 3 else photometric in GREYS
    if samples not in (1, 3) or not known:
        raise InputError(
            f"{samples} samples per pixel as {photometric or 'nothing declared'}", path=path, hint="export it again"
        )
    for name in ("RescaleSlope", "RescaleIntercept", "DoseGridScaling"):
        value = header.get(name)
        if value is not None and (not np.isfinite(float(value)) or (name != "RescaleIntercept" and float(value) == 0)):
            raise InputError(f"{name} is {value}", path=path, hint="export it again")
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
            hint="convert it to an uncompressed one, e.g. with dcmdjpeg, gdcmconv or dcmconv",
        )
    return values


def _number(header: FileDataset, name: str, path: Path) -> int:
    value = header.get(name)
    if not isinstance(value, int):
        raise InputError(f"{name} is missing or no number", path=path, hint="export it again")
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
            hint="copy or export the file again",
        )


def _check_encapsulated(header: FileDataset, frames: int, syntax: UID, path: Path) -> None:
    try:
        parts = list(generate_frames(header.PixelData, number_of_frames=frames))
    except Exception as error:  # struct, value and EOF errors by where the damage lies
        raise InputError(
            f"compressed pixel data is damaged or cut off ({syntax.name})",
            path=path,
            hint="copy or export the file again",
        ) from error
    if len(parts) != frames:
        raise InputError(f"{len(parts)} compressed frames where {frames} are due", path=path, hint="copy it again")
    if syntax in JPEG:
        for part in parts:
            # every JPEG family ends with the marker FFD9, after the last start of a scan (FFDA) or of tile data (FF93)
            end = part.rfind(b"\xff\xd9")
            if end < 0 or end < max(part.rfind(b"\xff\xda"), part.rfind(b"\xff\x93")):
                raise InputError(f"a compressed frame is cut off ({syntax.name})", path=path, hint="copy it again")
            check_stream(header, part, syntax, path)
