"""The pixels of one checked DICOM file: decoded, rescaled, and of one polarity.

pydicom decodes uncompressed and RLE data; palettes, rescaling and polarity are applied here. ITK decodes the JPEG
families and does those steps itself, to the same values; uncompressed, it gets signed bytes, 32 bits and 16-bit colour
wrong or not at all, and a palette that is missing ends the process.
"""

from __future__ import annotations

from pathlib import Path

import itk
import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.uid import UID

from monai_transfer.data.readers.base import check_values
from monai_transfer.data.readers.dicom_pixels import JPEG, NATIVE, RLE, number_of_frames
from monai_transfer.errors import InputError

__all__ = ["read_pixels"]

ENHANCED = {f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2.1", "2.2", "4.1", "4.4", "130", "128.1")}
"""Enhanced and converted CT, MR and PET: the kinds whose per-frame rescaling ITK knows (tried)."""


def read_pixels(header: FileDataset, path: Path) -> np.ndarray:
    """Decoded and rescaled values, frames x rows x columns [x 3]; MONOCHROME1 turned so that high is bright.

    Args:
        header: of ``read_headers``, checked by ``check_pixels``.
        path: the file.

    Raises:
        InputError: the pixels cannot be decoded, are not of the declared shape, or hold NaN.

    A slice of 2 x 2 pixels whose header says: stored value times 2, minus 1000:

    >>> import tempfile
    >>> from monai_transfer.data.phantom.sites import SITES
    >>> from monai_transfer.data.phantom.write import write_dicom
    >>> from monai_transfer.data.readers.dicom_headers import list_files, read_headers
    >>> folder, protocol = Path(tempfile.mkdtemp()), SITES["site_a"].protocol
    >>> volume = np.array([[[1], [2]], [[3], [4]]], np.int16)
    >>> write_dicom(folder / "series", volume, np.eye(4), patient_id="P1", protocol=protocol)
    >>> header = read_headers(list_files(folder / "series"))[0]
    >>> header.RescaleSlope, header.RescaleIntercept = "2", "-1000"
    >>> read_pixels(header, Path(header.filename))[0].tolist()  # rows of the picture
    [[-998, -994], [-996, -992]]
    """
    syntax = str(header.file_meta.TransferSyntaxUID)
    transforms = _frame_transforms(header)
    if syntax in JPEG and transforms is None:
        array = _read_with_itk(path, syntax)
    else:
        array = _read_with_pydicom(header, path, syntax)
        if transforms is not None:
            array = _rescale(array, transforms[:, 0, None, None], transforms[:, 1, None, None])
        else:
            slope = _factor(header, "RescaleSlope") * _factor(header, "DoseGridScaling")
            array = _rescale(array, np.array(slope), np.array(float(header.get("RescaleIntercept") or 0)))
    colour = int(header.SamplesPerPixel) == 3 or header.PhotometricInterpretation == "PALETTE COLOR"
    shape = (number_of_frames(header, path), int(header.Rows), int(header.Columns), *((3,) if colour else ()))
    if array.shape != shape:
        raise InputError(f"decodes to shape {array.shape} where {shape} is declared", path=path, hint="export it again")
    check_values(array, path)
    return array


def _factor(header: FileDataset, keyword: str) -> float:
    value = header.get(keyword)
    return 1.0 if value is None else float(value)


def _rescale(array: np.ndarray, slope: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """``array * slope + intercept``; whole numbers stay whole."""
    if np.all(slope == 1) and np.all(intercept == 0):
        return array
    whole = np.all(slope == np.round(slope)) and np.all(intercept == np.round(intercept))
    if whole and array.dtype.itemsize <= 2 and max(np.abs(slope).max(), np.abs(intercept).max()) < 2**14:
        return array.astype(np.int32) * slope.astype(np.int32) + intercept.astype(np.int32)
    return array * slope + intercept


def _read_with_itk(path: Path, syntax: str) -> np.ndarray:
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return itk.array_from_image(itk.imread(str(path), imageio=itk.GDCMImageIO.New()))
    except Exception as error:  # ITK raises RuntimeError, KeyError and TypeError alike
        raise InputError(
            f"its pixels cannot be decoded ({UID(syntax).name})",
            path=path,
            hint="copy it again; if it is whole, convert it to an uncompressed one",
        ) from error


def _frame_transforms(header: FileDataset) -> np.ndarray | None:
    """Slope and intercept of each frame (frames x 2) of an enhanced multi-frame image; ``None`` where it has none.

    ITK applies the first frame's to all frames, and none for some kinds of image.
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
    return None if itk_knows and str(header.file_meta.TransferSyntaxUID) in JPEG else transforms


def _read_with_pydicom(header: FileDataset, path: Path, syntax: str) -> np.ndarray:
    """Stored values, or colours as RGB; frames x rows x columns [x 3]."""
    photometric = str(header.PhotometricInterpretation)
    if syntax not in NATIVE | {RLE}:
        raise InputError(
            f"{photometric} in {UID(syntax).name} with a rescaling per frame cannot be decoded here",
            path=path,
            hint="convert it to an uncompressed one",
        )
    try:
        decoded, _ = get_decoder(UID(syntax)).as_array(header)  # turns YBR to RGB and clears unused bits
        array = np.asarray(decoded).astype(decoded.dtype.newbyteorder("="), copy=False)
        if photometric == "PALETTE COLOR":
            array = apply_color_lut(array, header)
            if (
                array.dtype == np.uint16 and array.max() > 255
            ):  # 16-bit entries; some files hold 8-bit ones all the same
                array = array >> 8
            array = array.astype(np.uint8)[..., :3]
    except Exception as error:  # pydicom's decoders raise many kinds
        raise InputError(
            f"its pixels cannot be decoded ({type(error).__name__})", path=path, hint="export it again"
        ) from error
    if photometric == "MONOCHROME1":
        # ~ of signed data and the largest stored value minus unsigned data: what ITK does
        array = (
            ~array
            if header.PixelRepresentation
            else np.asarray(2 ** int(header.BitsStored) - 1 - array.astype(np.int64)).astype(array.dtype)
        )
    colours = int(header.SamplesPerPixel) > 1 or photometric == "PALETTE COLOR"
    return array[None] if array.ndim == (3 if colours else 2) else array
