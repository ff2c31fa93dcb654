"""NRRD and MetaImage (``.nrrd``, ``.mha``, ``.mhd``) through ITK: labels and exports often come so."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import itk
import numpy as np
from monai.data.utils import orientation_ras_lps

from monai_transfer.data.readers.base import CheckedReader, Volume, check_memory, check_spacing, check_values, existing
from monai_transfer.errors import InputError
from monai_transfer.manifest.itk_headers import check_itk_header, itk_format, meta_image_header
from monai_transfer.manifest.nrrd import read_header

__all__ = ["ItkReader", "itk_format"]


class ItkReader(CheckedReader):
    """Reads NRRD and MetaImage; values, axes and affine equal MONAI's ``ITKReader``. No header text is kept.

    Args:
        max_memory: bytes (or ``"2GiB"``) that one image may take.
        spacing_limits: smallest and largest plausible voxel size in mm.

    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "scan.nrrd"
    >>> lines = ["NRRD0004", "type: uchar", "dimension: 3", "sizes: 2 2 2", "space: left-posterior-superior"]
    >>> lines += ["encoding: raw", "space directions: (0.5,0,0) (0,0.5,0) (0,0,2)", "space origin: (0,0,0)", "", ""]
    >>> _ = path.write_bytes(chr(10).join(lines).encode() + bytes(range(8)))
    >>> volume = ItkReader().read_volume(path)
    >>> volume.spacing, int(volume.array[1, 0, 0])
    ((0.5, 0.5, 2.0), 1)
    """

    def __init__(self, max_memory: int | str | None = None, spacing_limits: tuple[float, float] = (0.01, 50.0)) -> None:
        super().__init__(max_memory)
        self.spacing_limits = (float(spacing_limits[0]), float(spacing_limits[1]))

    def read_volume(self, path: str | Path) -> Volume:
        """Read one file. ``InputError`` for damaged files, 4D volumes, implausible spacing, NaN, too much memory."""
        path = existing(path)
        due = check_itk_header(path)
        with path.open("rb") as stream:
            name = itk_format(stream.read(64))
        check_memory(due, self.max_memory, path)
        _unpack_nrrd(path, due) if name == "NRRD" else _unpack_meta_image(path, due)
        itk.ProcessObject.SetGlobalWarningDisplay(False)
        io: Any = itk.NrrdImageIO.New() if name == "NRRD" else itk.MetaImageIO.New()
        try:
            io.SetFileName(str(path))
            io.ReadImageInformation()
            size = [int(io.GetDimensions(n)) for n in range(io.GetNumberOfDimensions())]
            values = int(np.prod(size, dtype=object)) * int(io.GetNumberOfComponents())
            if values < 1:
                raise InputError(f"impossible shape in the header ({size})", path=path, hint="export it again")
            check_memory(values * (int(io.GetComponentSize()) + 4), self.max_memory, path)
            image = itk.imread(str(path), imageio=io)
        except InputError:
            raise
        except Exception as error:  # ITK raises RuntimeError, KeyError and TypeError alike
            raise InputError(f"damaged or unknown kind of {name} file", path=path, hint="export it again") from error
        if len(size) > 3:
            raise InputError(f"{len(size)}D data", path=path, hint="split it into 3D files")
        direction = np.asarray(itk.array_from_matrix(image.GetDirection()))
        spacing, rank = np.asarray(image.GetSpacing()), len(size)
        affine = np.eye(4)
        affine[:rank, :rank] = direction @ np.diag(spacing)
        affine[:rank, 3] = np.asarray(image.GetOrigin())
        if not np.all(np.isfinite(affine)) or abs(np.linalg.det(direction)) < 1e-3:
            raise InputError("its directions are singular or not finite", path=path, hint="export it again")
        check_spacing(spacing.tolist(), size, self.spacing_limits, path)
        array = itk.array_from_image(image)
        check_values(array, path)
        channel_last = image.GetNumberOfComponentsPerPixel() > 1
        array = np.moveaxis(array.T, 0, -1) if channel_last else array.T
        return Volume(array, np.asarray(orientation_ras_lps(affine)), channel_last)


def _unpack_nrrd(path: Path, due: int) -> None:
    """Read packed data to its end, so that its CRC-32 is verified; ITK stops before."""
    given, start = read_header(path)
    fields = {key.lower(): value for key, value in given.items()}
    if "data file" in fields or "datafile" in fields or fields["encoding"].lower() not in ("gz", "gzip"):
        return
    length = 0
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            with gzip.GzipFile(fileobj=stream) as unpacked:
                while length <= due and (block := unpacked.read(2**22)):
                    length += len(block)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"damaged gzip data ({error})", path=path, hint="copy or export it again") from error
    if length > due:
        raise InputError(f"packs more than the {due} bytes of its header", path=path, hint="export it again")


def _unpack_meta_image(path: Path, due: int) -> None:
    """Unpack packed data once: where that fails, ITK gives an image of what the memory held before.

    Refused, too: an intensity scaling, which ITK leaves out.
    """
    fields, start = meta_image_header(path)
    for key, plain in (("elementtointensityfunctionslope", 1.0), ("elementtointensityfunctionoffset", 0.0)):
        if key in fields and fields[key] not in (str(plain), str(int(plain))):
            raise InputError(
                f"an intensity scaling ({key} {fields[key][:40]}), which is not applied here",
                path=path,
                hint="apply it and export again",
            )
    if fields.get("compresseddata", "").lower() != "true":
        return
    data = fields["elementdatafile"]
    source = path if data.lower() == "local" else path.with_name(data)
    unpacker, length = zlib.decompressobj(zlib.MAX_WBITS | 32), 0
    try:
        with source.open("rb") as stream:
            stream.seek(start if source == path else 0)
            while not unpacker.eof and length <= due and (packed := unpacker.unconsumed_tail or stream.read(2**20)):
                length += len(unpacker.decompress(packed, 2**22))
    except (OSError, zlib.error) as error:
        raise InputError(f"damaged packed data ({error})", path=path, hint="copy or export it again") from error
    if not unpacker.eof or length != due:
        raise InputError(
            f"its packed data holds {length} bytes where its header promises {due}", path=path, hint="export it again"
        )
