"""What was written is opened again before ``predict`` says so: savers fail without a word on a full disk."""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from pathlib import Path

import nibabel
import pydicom
from nibabel.filebasedimages import ImageFileError
from PIL import Image

from monai_transfer.errors import InputError

__all__ = ["check_output"]

_BLOCK = 2**22


def check_output(path: Path) -> None:
    """Read a file to its end and compare its size and checksums with what its header promises.

    Raises:
        InputError: it is not whole.
    """
    try:
        fault = _fault(path)
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError) as error:
        fault = f"cannot be read again: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    except Exception as error:  # readers of pictures and DICOM raise many kinds
        fault = f"cannot be read again: {type(error).__name__}"
    if fault is not None:
        raise InputError(f"what was written is not whole: it {fault}", path=path, hint="is the disk full?")


def _fault(path: Path) -> str | None:
    name = path.name.lower()
    if path.stat().st_size == 0:
        return "is empty"
    if name.endswith((".nii", ".nii.gz")):
        image = nibabel.load(path)
        header = image.header
        offset = int(getattr(image.dataobj, "offset", 0))
        asked = offset + math.prod(image.shape) * header.get_data_dtype().itemsize  # type: ignore[union-attr]
        found = _length(path)
        return None if found >= asked and min(image.shape) > 0 else f"holds {found} of {asked} bytes"
    if name.endswith((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")):
        with Image.open(path) as picture:
            picture.load()
        return None
    if name.endswith(".json"):
        json.loads(path.read_text(encoding="utf-8"))
        return None
    if name.endswith(".csv"):
        with path.open(newline="", encoding="utf-8") as stream:
            widths = {len(row) for row in csv.reader(stream)}
        return None if len(widths) == 1 else "has rows of unequal length"
    if name.endswith(".dcm"):
        pydicom.dcmread(path).PixelData  # noqa: B018 - read to its end
    return None


def _length(path: Path) -> int:
    """Bytes of a file, of a compressed one those inside, with the checksum at its end looked at."""
    if path.suffix != ".gz":
        return path.stat().st_size
    total = 0
    with gzip.open(path) as stream:
        while block := stream.read(_BLOCK):
            total += len(block)
    return total
