"""PNG, JPEG, TIFF and BMP through Pillow, as the picture that a person would see.

Palette images become their colours, EXIF rotation is applied, CMYK and opaque alpha become RGB, 16-bit stays 16-bit,
white-is-zero TIFFs are turned to black-is-zero. PNG checksums, which Pillow skips for pixel data, are verified.
"""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path
from typing import Literal

import itk
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from monai_transfer.data.readers.base import CheckedReader, Volume, check_memory, check_values, existing
from monai_transfer.errors import InputError

__all__ = ["RasterReader", "is_raster"]

PNG = b"\x89PNG\r\n\x1a\n"
FORMATS = {PNG: "PNG", b"\xff\xd8\xff": "JPEG", b"II*\x00": "TIFF", b"MM\x00*": "TIFF", b"BM": "BMP"}
WHITE_IS_ZERO, PHOTOMETRIC, BITS, SAMPLE_FORMAT = 0, 262, 258, 339
DEEP_SAMPLES = {2: 3, 4: 2, 6: 4}
"""Samples per pixel by a PNG's colour type: RGB, grey and alpha, RGB and alpha."""


def is_raster(start: bytes) -> bool:
    r"""Whether a file's first bytes are those of a PNG, JPEG, TIFF or BMP.

    Args:
        start: of the file, 8 bytes or more.

    >>> is_raster(b"\x89PNG\r\n\x1a\n"), is_raster(b"NRRD0004")
    (True, False)
    """
    return any(start.startswith(magic) for magic in FORMATS)


class RasterReader(CheckedReader):
    """Reads 2D pictures; axes are (x, y[, channel]), as MONAI's ``PILReader`` orders them, and values equal its for
    plain grey and RGB files.

    Refused with an ``InputError``: cut-off or damaged files, several pages or frames, transparency (the colour under it
    is undefined), formats other than PNG, JPEG, TIFF and BMP, more memory than allowed.

    Args:
        max_memory: bytes (or ``"2GiB"``) that one image may take.
        palette: what a palette image is: ``"colour"`` for pictures, ``"index"`` for label masks.
        mode: ``"grey"`` or ``"rgb"`` converts every picture to that, so a mixed set has one number of channels.

    Raises:
        InputError: ``palette`` or ``mode`` is unknown.

    A palette is read as the grey values that it stands for, not as its indices:

    >>> import tempfile, numpy as np
    >>> from PIL import Image
    >>> from monai_transfer.data.readers.raster import RasterReader
    >>> folder = tempfile.TemporaryDirectory()
    >>> picture = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    >>> picture.putpalette([200, 200, 200, 10, 10, 10])
    >>> picture.save(f"{folder.name}/a.png")
    >>> reader = RasterReader(mode="grey")
    >>> reader.get_data(reader.read(f"{folder.name}/a.png"))[0].squeeze().tolist()
    [200, 10]
    """

    def __init__(
        self,
        max_memory: int | str | None = None,
        palette: Literal["colour", "index"] = "colour",
        mode: Literal["grey", "rgb"] | None = None,
    ) -> None:
        super().__init__(max_memory)
        if palette not in ("colour", "index") or mode not in ("grey", "rgb", None):
            raise InputError(f"palette {palette!r} or mode {mode!r} is unknown", hint="see RasterReader")
        self.palette, self.mode = palette, mode

    def read_volume(self, path: str | Path) -> Volume:
        """Read one picture."""
        path = existing(path)
        with path.open("rb") as stream:
            start = stream.read(32)
        if not is_raster(start):
            raise InputError("not a PNG, JPEG, TIFF or BMP file", path=path, hint="convert it to PNG")
        if start.startswith(PNG):
            _check_png(path, self.max_memory)
        elif start.startswith(b"\xff\xd8"):
            _check_jpeg(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(path, formats=["PNG", "JPEG", "TIFF", "BMP"]) as image:
                    width, height = image.size
                    check_memory(width * height * len(image.getbands()) * 12, self.max_memory, path)
                    pages = getattr(image, "n_frames", 1)
                    if pages > 1:
                        raise InputError(f"{pages} pages or frames", path=path, hint="split it into single files")  # type: ignore[attr-defined]
                    if image.format == "TIFF":
                        _check_tiff(image, path)
                    if image.format == "TIFF" and image.tile and image.tile[0][0] == "raw":
                        # Pillow 13 turns the size but not the lines of a rotated, uncompressed TIFF
                        image._size = (image.tag_v2[256], image.tag_v2[257])  # type: ignore[attr-defined]
                    image.load()
                    array = self._array(image, start, path)
        except InputError:
            raise
        except Image.DecompressionBombError as error:
            hint = "cut it into smaller pictures, if it is really so large"
            raise InputError("declares more pixels than are read at once", path=path, hint=hint) from error
        except UnidentifiedImageError as error:
            raise InputError("a damaged or unknown kind of picture", path=path, hint="convert it to PNG") from error
        except Exception as error:  # Pillow's decoders raise many kinds
            text = " ".join(str(error).split())[:120]
            raise InputError(f"damaged or cut off ({text})", path=path, hint="copy or export it again") from error
        check_values(array, path)
        array = np.swapaxes(array, 0, 1)
        return Volume(array, None, channel_last=array.ndim == 3)

    def _array(self, image: Image.Image, start: bytes, path: Path) -> np.ndarray:
        orientation = image.getexif().get(0x0112, 1)
        if start.startswith(PNG) and start[24] == 16 and start[25] in DEEP_SAMPLES:
            array = _deep_png(path, DEEP_SAMPLES[start[25]], orientation)  # Pillow would keep 8 of 16 bits
        else:
            array = np.asarray(self._grey_or_colour(ImageOps.exif_transpose(image), path))
            tags = getattr(image, "tag_v2", {})
            if array.dtype == np.int32 and tags.get(BITS) == (32,) and tuple(tags.get(SAMPLE_FORMAT, (1,))) == (1,):
                array = array.view(np.uint32)  # Pillow knows no unsigned 32 bits
            white = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
            if white and array.dtype == np.uint16:  # Pillow turns 1- and 8-bit images, but not these
                array = 65535 - array
        if array.dtype == bool:
            array = array.astype(np.uint8)
        if self.mode == "grey" and array.ndim == 3:
            weights = np.array([19595, 38470, 7471])  # ITU-R 601 in 16 bits, to the rounding of Pillow's "L"
            array = ((array.astype(np.int64) @ weights + 2**15) >> 16).astype(array.dtype)
        if self.mode == "rgb" and array.ndim == 2:
            array = np.repeat(array[..., None], 3, axis=-1)
        return array

    def _grey_or_colour(self, image: Image.Image, path: Path) -> Image.Image:
        """The same picture as grey or RGB."""
        mode = image.mode
        if mode == "P" and self.palette == "index":
            return image
        if "transparency" in image.info or mode in ("RGBA", "LA", "PA", "RGBa", "La"):
            # for "L" and "RGB" one value may be declared transparent; only pixels that are count
            if np.asarray(image.convert("RGBA").getchannel("A")).min() < 255:
                raise InputError(
                    "partly transparent, so its colours are undefined", path=path, hint="flatten it onto a background"
                )
            image = image.convert("L" if mode in ("L", "LA", "La") else "RGB")
            mode = image.mode if mode not in ("P", "PA") else "P"
        if mode == "P":
            palette = image.getpalette()
            if palette is not None and np.asarray(image).max() >= len(palette) // 3:
                raise InputError("colour numbers beyond its palette", path=path, hint="export it again")
            colours = np.asarray(image.convert("RGB"))
            grey = (colours == colours[..., :1]).all()
            return Image.fromarray(np.ascontiguousarray(colours[..., 0]) if grey else colours)
        if mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
            return image.convert("RGB")
        return image


def _deep_png(path: Path, samples: int, orientation: int) -> np.ndarray:
    vector = itk.Vector[itk.F, samples]  # ITK's wheel has no 16-bit colour type; float32 holds 16 bits exactly
    array = itk.array_from_image(itk.imread(str(path), vector)).astype(np.uint16)
    if samples in (2, 4) and array[..., -1].min() < 65535:
        raise InputError(
            "partly transparent, so its colours are undefined", path=path, hint="flatten it onto a background"
        )
    if orientation != 1:
        raise InputError("16-bit colour with an EXIF rotation", path=path, hint="rotate it and export it again")
    return array[..., 0] if samples == 2 else array[..., :3]


def _check_tiff(image: Image.Image, path: Path) -> None:
    """Refuse what Pillow reads with a loss or wrongly: 16-bit colour as 8 bits, signed bytes as unsigned."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = tags.get(BITS, (1,))
    signed = 2 in tuple(tags.get(SAMPLE_FORMAT, (1,)))
    if PHOTOMETRIC not in tags:
        raise InputError("a TIFF that does not say whether 0 is black or white", path=path, hint="export it again")
    if len(bits) > 1 and max(bits) > 8:
        raise InputError(f"a colour TIFF of {max(bits)} bits", path=path, hint="convert it to PNG or 8 bits")
    if signed and max(bits) == 8:
        raise InputError("a TIFF of signed bytes", path=path, hint="convert it to 16 bits")


def _check_png(path: Path, limit: int) -> None:
    """Walk the chunks and verify each CRC-32, to the end mark; then that there are as many pixels as declared."""
    check_memory(path.stat().st_size, limit, path)
    content = path.read_bytes()
    position, kind = len(PNG), b""
    kinds: set[bytes] = set()
    packed = []
    while kind != b"IEND":
        length = int.from_bytes(content[position : position + 4], "big")
        kind = content[position + 4 : position + 8]
        end = position + 8 + length
        if end + 4 > len(content):
            raise InputError("cut off (the PNG end mark is missing)", path=path, hint="copy or export it again")
        if zlib.crc32(content[position + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise InputError("damaged (a PNG checksum does not match)", path=path, hint="copy or export it again")
        if kind == b"acTL":
            raise InputError("an animated PNG", path=path, hint="split it into single files")
        if kind == b"IDAT":
            packed.append(content[position + 8 : end])
        kinds.add(kind)
        position = end + 4
    due = _png_bytes(content)
    check_memory(due, limit, path)
    try:  # Pillow fills in silence what is missing, and drops what is too much
        found = len(zlib.decompressobj().decompress(b"".join(packed), due + 1))
    except zlib.error as error:
        raise InputError(f"damaged ({error})", path=path, hint="copy or export it again") from error
    if found != due:
        what = "fewer" if found < due else "more"
        raise InputError(f"holds {what} pixels than its header says", path=path, hint="export it again")
    if content[25] == 3 and b"PLTE" not in kinds:
        raise InputError("a palette image without its palette", path=path, hint="export it again")


_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced PNG: first column and row, steps across and down."""


def _png_bytes(content: bytes) -> int:
    """Bytes of the unpacked lines, each with its filter byte, by the PNG's header."""
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    bits = content[24] * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(content[25], 1)
    total = 0
    for x, y, across, down in _PASSES if content[28] else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // across), -(-(height - y) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def _check_jpeg(path: Path) -> None:
    """After the last scan's start (FFDA) the end mark FFD9 must come; Pillow fills in silence what is missing."""
    content = path.read_bytes()
    if content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise InputError("cut off (the JPEG end mark is missing)", path=path, hint="copy or export it again")
