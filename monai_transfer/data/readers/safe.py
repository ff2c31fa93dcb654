"""One reader for everything: the content of a file, never its name, says which of our readers takes it."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from monai_transfer.data.readers.base import CheckedReader, Volume, existing
from monai_transfer.data.readers.dicom import DicomReader
from monai_transfer.data.readers.dicom_headers import is_dicom
from monai_transfer.data.readers.itk_formats import ItkReader, itk_format
from monai_transfer.data.readers.nifti import NiftiReader, nifti_kind
from monai_transfer.data.readers.raster import RasterReader, is_raster
from monai_transfer.errors import InputError
from monai_transfer.manifest.label_arrays import NEAR

__all__ = ["SafeReader"]


class SafeReader(CheckedReader):
    """Reads NIfTI, DICOM (files and series folders), PNG, JPEG, TIFF, BMP, NRRD and MetaImage, right or not at all.

    Use it in any MONAI config: ``LoadImaged(keys=..., reader="monai_transfer.data.readers.SafeReader")``. Values, axes
    and affine equal those of MONAI's own readers for sound files. Every fault is an ``InputError``: one line with the
    file, the fault and the hint (inside ``Compose`` MONAI wraps it; it is then the cause of the ``RuntimeError``).

    Args:
        max_memory: bytes (or ``"2GiB"``) that one image may take, by default 4 GiB or half of the machine's memory.
        spacing_limits: smallest and largest plausible voxel size in mm.
        channels: how many channels a NIfTI must have; ``None`` accepts any number.
        series: chooses one of several DICOM series in a folder.
        palette, mode: see ``RasterReader``; use ``palette="index"`` for label masks: palette images give their indices,
            and values within 0.01 of whole numbers (1.0000153, of a scaled NIfTI) are rounded.

    >>> import tempfile, nibabel, numpy as np
    >>> from monai.transforms import LoadImage
    >>> from monai_transfer.data.readers.safe import SafeReader
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = f"{folder.name}/scan.nii.gz"
    >>> nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.diag([2.0, 2.0, 3.0, 1.0])), path)
    >>> image = LoadImage(reader=SafeReader(), image_only=True)(path)
    >>> tuple(image.shape), image.pixdim.tolist()
    ((4, 5, 6), [2.0, 2.0, 3.0])
    """

    def __init__(
        self,
        max_memory: int | str | None = None,
        spacing_limits: tuple[float, float] = (0.01, 50.0),
        channels: int | None = None,
        series: str | None = None,
        palette: Literal["colour", "index"] = "colour",
        mode: Literal["grey", "rgb"] | None = None,
    ) -> None:
        super().__init__(max_memory)
        self.nifti = NiftiReader(self.max_memory, spacing_limits, channels)
        self.dicom = DicomReader(self.max_memory, spacing_limits, series)
        self.raster = RasterReader(self.max_memory, palette, mode)
        self.itk = ItkReader(self.max_memory, spacing_limits)
        self.labels = palette == "index"

    def read_volume(self, path: str | Path) -> Volume:
        """Read a file or a DICOM series folder fully."""
        volume = self.choose(path).read_volume(path)
        return _whole(volume) if self.labels else volume

    def choose(self, path: str | Path) -> CheckedReader:
        """Which reader takes ``path``; ``InputError`` where none does."""
        path = existing(path)
        if path.is_dir():
            return self.dicom
        try:
            with path.open("rb") as stream:
                start = stream.read(132)
            if start.startswith(b"\x1f\x8b"):
                with gzip.open(path) as stream:
                    packed = stream.read(4)
                if nifti_kind(packed) is None:
                    raise InputError("gzip data that is no NIfTI", path=path, hint="unpack it and look what it is")
                return self.nifti
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"damaged gzip data ({error})", path=path, hint="copy or export the file again") from error
        except OSError as error:
            raise InputError(
                f"cannot be read ({error.strerror})", path=path, hint="copy the file again, or look at its drive"
            ) from error
        if is_dicom(start):
            return self.dicom
        if is_raster(start):
            return self.raster
        if itk_format(start):
            return self.itk
        if nifti_kind(start) is not None or path.suffix == ".nii":
            return self.nifti
        if path.suffix.lower() in (".dcm", ".ima"):
            return self.dicom  # its error says what a damaged slice needs
        fault, hint = _foreign(path, start)
        raise InputError(fault, path=path, hint=hint)


def _whole(volume: Volume) -> Volume:
    """The volume with nearly whole numbers rounded; ``meta["rounded"]`` is then the one that was farthest off."""
    array = volume.array
    if array.dtype.kind != "f":
        return volume
    near = np.round(array)
    apart = np.abs(array - near)
    if array.size and 0 < apart.max() <= NEAR:
        return replace(volume, array=near, meta=volume.meta | {"rounded": float(array.flat[apart.argmax()])})
    return volume


_FOREIGN = {
    b"PK\x03\x04": ("a zip archive", "unpack it first"),
    b"BZh": ("bzip2 data", "unpack it first"),
    b"\x28\xb5\x2f\xfd": ("zstandard data", "unpack it first"),
    b"\xfd7zXZ": ("xz data", "unpack it first"),
    b"version https://git-lfs": ("a Git LFS pointer in place of the file", "fetch it with `git lfs pull`"),
    b"<": ("a web page or XML", "download the file again"),
    b"{": ("JSON", "take it out of the images"),
    b"GIF8": ("a GIF", "convert it to PNG"),
    b"RIFF": ("a WebP picture or a film", "convert it to PNG"),
    b"\x00\x00\x00\x0cjP  ": ("a JPEG 2000 picture", "convert it to PNG"),
    b"\xff\x4f\xff\x51": ("a JPEG 2000 picture", "convert it to PNG"),
    b"II+\x00": ("a BigTIFF", "convert it to TIFF or PNG"),
    b"MM\x00+": ("a BigTIFF", "convert it to TIFF or PNG"),
    b"%PDF": ("a PDF", "export the image itself"),
    b"\x89HDF": ("an HDF5 file", "convert it to NIfTI"),
    b"\x93NUMPY": ("a NumPy array, which has no geometry", "convert it to NIfTI"),
}
"""Why a file that has no business here may be here, by its first bytes."""


def _foreign(path: Path, start: bytes) -> tuple[str, str]:
    """Fault and hint for a file that none of our readers takes."""
    for magic, (what, hint) in _FOREIGN.items():
        if start.startswith(magic):
            return f"{what}, which is not read here", hint
    if path.suffix.lower() == ".img" and path.with_suffix(".hdr").exists():
        return "the voxels of a .hdr/.img pair", "convert the pair to .nii.gz, and make sure of left and right"
    formats = "NIfTI, DICOM, PNG, JPEG, TIFF, BMP, NRRD, MetaImage"
    return f"not a format that is read here ({formats})", "convert it, or copy it again if it should be one of these"
