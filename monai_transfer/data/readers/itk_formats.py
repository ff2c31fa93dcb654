"""NRRD and MetaImage (``.nrrd``, ``.mha``, ``.mhd``) through ITK: labels and exports often come so."""

from __future__ import annotations

import gzip
import math
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
        with path.open("rb") as stream:
            name = itk_format(stream.read(64))
        if name is None:
            raise InputError("neither NRRD nor MetaImage", path=path, hint="convert it to NIfTI")
        _check_nrrd(path) if name == "NRRD" else _check_meta_image(path)
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


def _check_nrrd(path: Path) -> None:
    """Read packed data to its end, so that its CRC-32 is verified; ITK stops before."""
    try:
        with path.open("rb") as stream:
            header = b""
            for line in stream:
                header += line
                if not line.strip() or len(header) > 2**20:
                    break
            detached = re.search(rb"(?im)^data ?file: *(.*?)\s*$", header)
            if detached:
                _check_beside(detached[1].decode(errors="replace"), path)
            if detached or not re.search(rb"(?i)encoding: *gz(ip)?\s", header):
                return
            with gzip.GzipFile(fileobj=stream) as unpacked:
                while unpacked.read(2**22):
                    pass
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"damaged gzip data ({error})", path=path, hint="copy or export it again") from error


def _check_meta_image(path: Path) -> None:
    """Unpack packed data once: where that fails, ITK gives an image of what the memory held before.

    Refused, too: an intensity scaling, which ITK leaves out.
    """
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        for line in stream:
            key, sign, value = line.decode(errors="replace").partition("=")
            fields[key.strip().lower()] = value.strip()
            if not sign or key.strip().lower() == "elementdatafile" or stream.tell() > 2**20:
                break
        start = stream.tell()
    for key, plain in (("elementtointensityfunctionslope", 1.0), ("elementtointensityfunctionoffset", 0.0)):
        if key in fields and fields[key] not in (str(plain), str(int(plain))):
            raise InputError(
                f"an intensity scaling ({key} {fields[key]}), which is not applied here",
                path=path,
                hint="apply it and export again",
            )
    data = fields.get("elementdatafile", "LOCAL")
    if data.lower() != "local":
        _check_beside(data, path)
    if fields.get("compresseddata", "").lower() != "true":
        return
    source = path if data.lower() == "local" else path.with_name(data)
    unpacker, length = zlib.decompressobj(zlib.MAX_WBITS | 32), 0
    try:
        with source.open("rb") as stream:
            stream.seek(start if source == path else 0)
            while not unpacker.eof and (packed := unpacker.unconsumed_tail or stream.read(2**20)):
                length += len(unpacker.decompress(packed, 2**22))
    except (OSError, zlib.error) as error:
        raise InputError(f"damaged packed data ({error})", path=path, hint="copy or export it again") from error
    due = _length(fields)
    if not unpacker.eof or (due is not None and length != due):
        raise InputError(
            f"its packed data holds {length} bytes where its header promises {due}", path=path, hint="export it again"
        )


_BYTES = {"char": 1, "uchar": 1, "short": 2, "ushort": 2, "int": 4, "uint": 4, "long": 4, "ulong": 4, "float": 4}
_BYTES |= {"long_long": 8, "ulong_long": 8, "double": 8}


def _length(fields: dict[str, str]) -> int | None:
    """The bytes that a MetaImage header promises, where that can be told."""
    width = _BYTES.get(fields.get("elementtype", "").lower().removeprefix("met_").removesuffix("_array"))
    sizes = fields.get("dimsize", "").split() + [fields.get("elementnumberofchannels", "1")]
    if width is None or not all(size.isdecimal() for size in sizes):
        return None
    return width * math.prod(map(int, sizes))


def _check_beside(name: str, path: Path) -> None:
    """A header may name a file of its own folder; any other would bring in what nobody meant."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(
            f"its header names a data file outside its folder ({name})", path=path, hint="put both into one folder"
        )
    if "%" not in name and not name.upper().startswith("LIST") and not (path.parent / name).is_file():
        raise InputError(f"its data file {name} is not beside it", path=path, hint="copy both")
