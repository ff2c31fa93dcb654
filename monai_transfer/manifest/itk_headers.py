"""Headers of NRRD and MetaImage files, looked at before ITK reads them: its C++ code trusts what they say.

A dimension or a size that lies can end the whole process there, and a header may name any file of the disk.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from monai_transfer.errors import InputError
from monai_transfer.manifest.nrrd import read_header

__all__ = ["MAX_HEADER", "check_itk_header", "itk_format", "meta_image_header"]

MAX_HEADER = 4 << 20
"""Bytes: a segmentation of 3D Slicer has some 400 for each segment."""
_MAX_DIMENSIONS = 10
"""MetaImage's own limit; NRRD's is 16, and nothing here reads more than four."""
_MAX_PACKED = 1100
"""Times as much as deflate can pack: its limit is 1032."""
_SIZE = re.compile(r"0*[1-9][0-9]{0,8}")
_HINT = "export it again"

_NRRD_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "unsigned char", "uchar", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"), 4),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int"), 8),
    **dict.fromkeys(("int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int"), 8),
    **dict.fromkeys(("uint64", "uint64_t", "double"), 8),
    "float": 4,
}
_META_TYPES = {"char": 1, "uchar": 1, "short": 2, "ushort": 2, "int": 4, "uint": 4, "long": 4, "ulong": 4, "float": 4}
_META_TYPES |= {"long_long": 8, "ulong_long": 8, "double": 8}


def itk_format(start: bytes) -> str | None:
    """``"NRRD"`` or ``"MetaImage"`` by a file's first bytes, else ``None``.

    >>> itk_format(b"NRRD0004"), itk_format(b"ObjectType = Image"), itk_format(b"PNG")
    ('NRRD', 'MetaImage', None)
    """
    if start.startswith(b"NRRD000"):
        return "NRRD"
    if start.startswith((b"ObjectType", b"NDims", b"Comment")) and b"=" in start:
        return "MetaImage"
    return None


def check_itk_header(path: str | Path) -> int:
    """Refuse a header that ITK should not be given; returns the bytes of voxels that it promises.

    Args:
        path: a file of either format.

    Raises:
        InputError: it is neither; a size is missing or impossible; more is promised than the file can hold; or the
            voxels lie in several files, or outside of its folder.
    """
    path = Path(path)
    with path.open("rb") as stream:
        name = itk_format(stream.read(64))
    if name is None:
        raise InputError("neither NRRD nor MetaImage", path=path, hint="convert it to NIfTI")
    return _check_nrrd(path) if name == "NRRD" else _check_meta_image(path)


def meta_image_header(path: str | Path) -> tuple[dict[str, str], int]:
    """The fields of a MetaImage header by their names in small letters, and where the data begin.

    Raises:
        InputError: it has no end.
    """
    fields: dict[str, str] = {}
    with Path(path).open("rb") as stream:
        while line := stream.readline(MAX_HEADER):
            key, sign, value = line.decode(errors="replace").partition("=")
            fields[key.strip().lower()] = value.strip()
            if key.strip().lower() == "elementdatafile":
                return fields, stream.tell()
            if not sign or stream.tell() > MAX_HEADER:
                break
    raise InputError("its header has no end (ElementDataFile)", path=path, hint=_HINT)


def _check_nrrd(path: Path) -> int:
    given, start = read_header(path)
    fields = {key.lower(): value for key, value in given.items()}
    sizes = _sizes(fields.get("dimension", ""), fields.get("sizes", ""), path)
    width = _NRRD_TYPES.get(fields.get("type", "").lower())
    if width is None:
        raise InputError(f"values of type {fields.get('type', '')[:40]!r}", path=path, hint=_HINT)
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz", "bzip2", "bz2", "text", "txt", "ascii", "hex"):
        raise InputError(f"an encoding {encoding[:40]!r}", path=path, hint=_HINT)
    for key in ("line skip", "lineskip", "byte skip", "byteskip"):
        if not re.fullmatch(r"-1|[0-9]{1,12}", fields.get(key, "0")):
            raise InputError(f"a {key} of {fields[key][:40]!r}", path=path, hint=_HINT)
    data = fields.get("data file", fields.get("datafile"))
    due = width * math.prod(sizes)
    held = _held(data, path, start)
    room = {"raw": 1, "gzip": _MAX_PACKED, "gz": _MAX_PACKED}.get(encoding, 1 << 20)
    _check_promise(due, held * room, held, path)
    return due


def _check_meta_image(path: Path) -> int:
    fields, start = meta_image_header(path)
    sizes = _sizes(fields.get("ndims", ""), fields.get("dimsize", ""), path)
    channels = fields.get("elementnumberofchannels", "1")
    if not re.fullmatch(r"0*[1-9][0-9]{0,4}", channels):
        raise InputError(f"{channels[:40]!r} channels", path=path, hint=_HINT)
    kind = fields.get("elementtype", "").lower().removeprefix("met_").removesuffix("_array")
    if kind not in _META_TYPES:
        raise InputError(f"values of type {fields.get('elementtype', '')[:40]!r}", path=path, hint=_HINT)
    due = _META_TYPES[kind] * math.prod(sizes) * int(channels)
    data = fields["elementdatafile"]
    held = _held(None if data.lower() == "local" else data, path, start)
    packed = fields.get("compresseddata", "").lower() == "true"
    as_text = fields.get("binarydata", "true").lower() == "false"
    _check_promise(due, held * (_MAX_PACKED if packed else 8 if as_text else 1), held, path)
    return due


def _sizes(dimensions: str, sizes: str, path: Path) -> list[int]:
    found = sizes.split()
    if not re.fullmatch(r"[0-9]{1,2}", dimensions) or not 1 <= int(dimensions) <= _MAX_DIMENSIONS:
        raise InputError(f"a header of {dimensions[:40]!r} dimensions", path=path, hint=_HINT)
    if len(found) != int(dimensions) or not all(_SIZE.fullmatch(size) for size in found):
        raise InputError(f"impossible sizes in the header ({sizes[:60]!r})", path=path, hint=_HINT)
    return [int(size) for size in found]


def _held(data: str | None, path: Path, start: int) -> int:
    """Bytes of voxels, behind the header or in the file that it names."""
    if data is None:
        return path.stat().st_size - start
    _check_beside(data, path)
    return (path.parent / data).stat().st_size


def _check_promise(due: int, most: int, held: int, path: Path) -> None:
    if due > most:
        fault = f"its header promises {due} bytes of voxels, and {max(0, held)} are in the file"
        raise InputError(fault, path=path, hint="copy or export it again")


def _check_beside(name: str, path: Path) -> None:
    """A header may name one file of its own folder; any other would bring in what nobody meant."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(
            f"its header names a data file outside its folder ({name[:80]})", path=path, hint="put both into one folder"
        )
    if "%" in name or name.upper().startswith("LIST"):
        raise InputError("its voxels lie in several files", path=path, hint="export it again as one file")
    if not (path.parent / name).is_file():
        raise InputError(f"its data file {name[:80]} is not beside it", path=path, hint="copy both")
