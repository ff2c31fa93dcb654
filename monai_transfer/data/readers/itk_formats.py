"""NRRD and MetaImage (``.nrrd``, ``.mha``, ``.mhd``) through ITK: labels and exports often come so."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path
from typing import Any

import itk
import numpy as np
from monai.data.utils import orientation_ras_lps

from monai_transfer.data.readers.base import CheckedReader, Volume, check_memory, check_spacing, check_values, existing
from monai_transfer.errors import InputError

__all__ = ["ItkReader", "itk_format"]


def itk_format(start: bytes) -> str | None:
    """``"NRRD"`` or ``"MetaImage"`` by a file's first bytes, else ``None``."""
    if start.startswith(b"NRRD000"):
        return "NRRD"
    if start.startswith((b"ObjectType", b"NDims", b"Comment")) and b"=" in start:
        return "MetaImage"
    return None


class ItkReader(CheckedReader):
    """Reads NRRD and MetaImage; values, axes and affine equal MONAI's ``ITKReader``. No header text is kept.

    Args:
        max_memory: bytes (or ``"2GiB"``) that one image may take.
        spacing_limits: smallest and largest plausible voxel size in mm.
    """

    def __init__(self, max_memory: int | str | None = None, spacing_limits: tuple[float, float] = (0.01, 50.0)) -> None:
        super().__init__(max_memory)
        self.spacing_limits = (float(spacing_limits[0]), float(spacing_limits[1]))

    def read_volume(self, path: str | Path) -> Volume:
        """Read one file. ``InputError`` for damaged files, 4D volumes, implausible spacing, NaN, too much memory."""
        path = existing(path)
        with path.open("rb") as stream:
            name = itk_format(stream.read(64))
        if name is None:
            raise InputError("neither NRRD nor MetaImage", path=path)
        if name == "NRRD":
            _check_nrrd_gzip(path)
        itk.ProcessObject.SetGlobalWarningDisplay(False)
        io: Any = itk.NrrdImageIO.New() if name == "NRRD" else itk.MetaImageIO.New()
        try:
            io.SetFileName(str(path))
            io.ReadImageInformation()
            size = [int(io.GetDimensions(n)) for n in range(io.GetNumberOfDimensions())]
            values = int(np.prod(size, dtype=object)) * int(io.GetNumberOfComponents())
            check_memory(values * (int(io.GetComponentSize()) + 4), self.max_memory, path)
            image = itk.imread(str(path), imageio=io)
        except InputError:
            raise
        except Exception as error:  # ITK raises RuntimeError, KeyError and TypeError alike
            raise InputError(f"damaged or unknown kind of {name} file", path=path, mend="export it again") from error
        if len(size) > 3:
            raise InputError(f"{len(size)}D data", path=path, mend="split it into 3D files")
        direction = np.asarray(itk.array_from_matrix(image.GetDirection()))
        spacing, rank = np.asarray(image.GetSpacing()), len(size)
        affine = np.eye(4)
        affine[:rank, :rank] = direction @ np.diag(spacing)
        affine[:rank, 3] = np.asarray(image.GetOrigin())
        if not np.all(np.isfinite(affine)) or abs(np.linalg.det(direction)) < 1e-3:
            raise InputError("its directions are singular or not finite", path=path, mend="export it again")
        check_spacing(spacing.tolist(), size, self.spacing_limits, path)
        array = itk.array_from_image(image)
        check_values(array, path)
        channel_last = image.GetNumberOfComponentsPerPixel() > 1
        array = np.moveaxis(array.T, 0, -1) if channel_last else array.T
        return Volume(array, np.asarray(orientation_ras_lps(affine)), channel_last)


def _check_nrrd_gzip(path: Path) -> None:
    """Read packed data to its end, so that its CRC-32 is verified; ITK stops before."""
    try:
        with path.open("rb") as stream:
            header = b""
            for line in stream:
                header += line.lower()
                if not line.strip() or len(header) > 2**20:
                    break
            if b"data file:" in header or b"datafile:" in header or not re.search(rb"encoding: *gz(ip)?\s", header):
                return
            with gzip.GzipFile(fileobj=stream) as unpacked:
                while unpacked.read(2**22):
                    pass
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"damaged gzip data ({error})", path=path, mend="copy or export it again") from error
