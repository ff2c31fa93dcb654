"""What a compressed frame says about itself: its size, samples and colours must be those of the DICOM header.

Decoders believe the frame and readers the header; where the two differ, rows are lost or colours are wrong in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import FileDataset
from pydicom.uid import UID

from monai_transfer.errors import InputError

__all__ = ["Stream", "check_stream", "read_stream"]

_ALONE = {0x01, *range(0xD0, 0xD9)}
"""JPEG markers without a length."""

_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Start of frame: baseline to lossless JPEG, and JPEG-LS."""


@dataclass(frozen=True)
class Stream:
    """The frame's own header.

    Attributes:
        rows, columns, samples: its size.
        bits: bits of each sample.
        colour: ``"RGB"`` or ``"YBR"`` where a JPEG says so, else ``None``.

    >>> Stream(rows=512, columns=512, samples=1, bits=16).colour is None  # grey
    True
    """

    rows: int
    columns: int
    samples: int
    bits: int
    colour: str | None = None


def read_stream(data: bytes) -> Stream | None:
    """The header of a JPEG, JPEG-LS or JPEG 2000 code stream; ``None`` where it is none or damaged.

    Args:
        data: one frame's bytes.

    The frame header of a JPEG of 2 rows and 3 columns, grey, 8 bits:

    >>> frame = bytes([8, 0, 2, 0, 3, 1, 1, 0x11, 0])  # bits, rows, columns, one component
    >>> read_stream(bytes.fromhex("ffd8ffc0000b") + frame)
    Stream(rows=2, columns=3, samples=1, bits=8, colour=None)
    """
    if data.startswith(b"\x00\x00\x00\x0cjP  "):  # some writers leave the JP2 file around the code stream
        data = data[max(data.find(b"\xff\x4f\xff\x51"), 0) :]
    if data.startswith(b"\xff\x4f\xff\x51"):
        return _jpeg2000(data)
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    return None


def _jpeg2000(data: bytes) -> Stream | None:
    if len(data) < 43:
        return None
    right, bottom, left, top = (int.from_bytes(data[at : at + 4], "big") for at in (8, 12, 16, 20))
    samples = int.from_bytes(data[40:42], "big")
    return Stream(bottom - top, right - left, samples, (data[42] & 127) + 1)


def _jpeg(data: bytes) -> Stream | None:
    at, colour = 2, None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if marker == 0xE0 and body.startswith(b"JFIF"):
            colour = colour or "YBR"
        elif marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            colour = "YBR" if body[11] else "RGB"
        elif marker in _FRAMES:
            if len(body) < 6:
                return None
            if body[6::3] == b"RGB":
                colour = "RGB"
            rows, columns = (int.from_bytes(body[k : k + 2], "big") for k in (1, 3))
            return Stream(rows, columns, body[5], body[0], colour if body[5] == 3 and marker < 0xC3 else None)
        elif marker == 0xDA:
            return None
        at += 2 + length
    return None


def check_stream(header: FileDataset, part: bytes, syntax: UID, path: Path) -> None:
    """Hold a compressed frame's own header against the DICOM header.

    Args:
        header: of the file.
        part: the frame's bytes.
        syntax: the file's transfer syntax, named in the error.
        path: named in the error.

    Raises:
        InputError: the frame is damaged, or differs from the header in size, samples, bits or colour.

    Half of a file that was copied while the scanner still wrote it:

    >>> from pydicom.uid import JPEG2000
    >>> try:
    ...     check_stream(FileDataset("a.dcm", {}), bytes.fromhex("ff4f"), JPEG2000, Path("a.dcm"))
    ... except InputError as error:
    ...     print(error.fault)
    a compressed frame is damaged, or not JPEG 2000 Image Compression
    """
    stream = read_stream(part)
    if stream is None:
        raise InputError(f"a compressed frame is damaged, or not {syntax.name}", path=path, hint="copy it again")
    samples, bits = int(header.SamplesPerPixel), int(header.BitsAllocated)
    found, due = (stream.rows, stream.columns, stream.samples), (int(header.Rows), int(header.Columns), samples)
    if found != due or stream.bits > bits:
        raise InputError(
            f"a compressed frame is {stream.columns} x {stream.rows} with {stream.samples} samples of {stream.bits} "
            f"bits where the header says {due[1]} x {due[0]}, {samples} and {bits}",
            path=path,
            hint="export it again",
        )
    photometric = str(header.PhotometricInterpretation)
    if stream.colour is not None and stream.colour != photometric[:3]:
        raise InputError(
            f"a compressed frame in {stream.colour} where the header says {photometric}, so its colours are doubtful",
            path=path,
            hint="find out which is true, and export it again",
        )
