"""Reading NRRD files with a list of layers, as 3D Slicer writes segmentations; ITK's Python wheels lack that kind."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np

from monai_transfer.errors import InputError

__all__ = ["read_header", "read_layers"]

_MAX_HEADER = 4 << 20  # bytes: a segmentation of 3D Slicer has some 400 for each segment
_TYPES = {
    **dict.fromkeys(("unsigned char", "uchar", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("unsigned short", "ushort", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("short", "signed short", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("unsigned int", "uint", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
}
_SPACES = {"left-posterior-superior": -1.0, "lps": -1.0, "right-anterior-superior": 1.0, "ras": 1.0}


def read_header(path: Path) -> tuple[dict[str, str], int]:
    """The fields of a NRRD header (``key: value`` and ``key:=value``), and where the data begin.

    Raises:
        InputError: it is no NRRD file, or its header has no end.
    """
    fields: dict[str, str] = {}
    try:
        with path.open("rb") as stream:
            if not stream.readline().startswith(b"NRRD"):
                raise InputError("is no NRRD file", path=path, hint="export it again as .nrrd")
            while line := stream.readline(_MAX_HEADER):
                if stream.tell() > _MAX_HEADER:
                    raise InputError("its header has no end", path=path, hint="export it again as .nrrd")
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                if not text:
                    break
                key, _, value = text.partition(":=") if ":=" in text else text.partition(":")
                if not text.startswith("#"):
                    fields[key.strip()] = value.strip()
            return fields, stream.tell()
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", path=path, hint="copy the file again, or look at its drive"
        ) from None


def read_layers(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The layers of a segmentation, and where they lie.

    Returns:
        whole numbers of shape column x row x slice x layer, and the 4 x 4 affine to RAS in mm.

    Raises:
        InputError: it is no NRRD file of one of the usual kinds, or is truncated.
    """
    fields, start = read_header(path)
    try:
        dtype = np.dtype(_TYPES[fields["type"].lower()]).newbyteorder("<" if fields.get("endian") != "big" else ">")
        sizes = [int(size) for size in fields["sizes"].split()]
        flip = _SPACES[fields["space"].lower()]
        vectors = fields["space directions"].split()
        listed = vectors[0] == "none"
        directions = np.array(
            [[float(v) for v in vector.strip("()").split(",")] for vector in vectors if vector != "none"]
        )
        origin = np.array([float(v) for v in fields["space origin"].strip("()").split(",")])
        encoding = fields["encoding"].lower()
        if directions.shape != (3, 3) or len(sizes) != 3 + listed or "data file" in fields:
            raise ValueError("not three axes of space and at most one of layers")
        if min(sizes) < 1:
            raise ValueError(f"sizes {fields['sizes']}")
        raw = path.read_bytes()[start:]
        if encoding in ("gzip", "gz"):
            # no more than the header declares, however much is packed behind it
            raw = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(raw, math.prod(sizes) * dtype.itemsize)
        elif encoding != "raw":
            raise ValueError(f"encoding {encoding}")
        data = np.frombuffer(raw, dtype, count=math.prod(sizes)).reshape(sizes, order="F")
    except (KeyError, ValueError, IndexError, EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"cannot be read as a segmentation ({error})", path=path, hint="save it again as .nrrd"
        ) from None
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions.T, origin
    layers = np.moveaxis(data, 0, -1) if listed else data[..., np.newaxis]
    return layers, np.diag([flip, flip, 1, 1]) @ affine
