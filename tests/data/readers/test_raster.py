"""Pictures: as a person would see them, or one line."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from monai.data import PILReader
from monai.transforms import LoadImage
from PIL import Image

from monai_transfer.data.readers import RasterReader, SafeReader
from monai_transfer.errors import InputError
from tests.data.readers.refusals import refused

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (9, 13), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (9, 13, 3), dtype=np.uint8)


def save(tmp_path, image, name="picture.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def read(path, **options):
    """Rows x columns [x channels], as the arrays above."""
    return np.swapaxes(SafeReader(**options).read_volume(path).array, 0, 1)


def deep_png(tmp_path, array):
    """A 16-bit colour PNG, which Pillow cannot write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, samples = array.shape
    size = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6, 2: 4}[samples], 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in array)
    path = tmp_path / "deep.png"
    data = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.jpg"])
@pytest.mark.parametrize("array", [GREY, COLOUR])
def test_equals_pil_reader(tmp_path, array, name):
    path = save(tmp_path, Image.fromarray(array), name)
    ours, theirs = (LoadImage(reader=r, ensure_channel_first=True)(path) for r in (SafeReader(), PILReader()))
    np.testing.assert_array_equal(ours.array, theirs.array)


def test_sixteen_bits(tmp_path):
    deep = GREY.astype(np.uint16) * 257
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(read(save(tmp_path, Image.fromarray(deep), name)), deep)
    colour = COLOUR.astype(np.uint16) * 256 + 7  # Pillow reads 8 of these 16 bits
    np.testing.assert_array_equal(read(deep_png(tmp_path, colour)), colour)
    alpha = np.dstack([colour, np.full_like(deep, 65535)])
    np.testing.assert_array_equal(read(deep_png(tmp_path, alpha)), colour)
    refused(deep_png(tmp_path, alpha - 1), "partly transparent")
    grey_alpha = np.dstack([deep, np.full_like(deep, 65535)])
    np.testing.assert_array_equal(read(deep_png(tmp_path, grey_alpha)), deep)
    refused(deep_png(tmp_path, grey_alpha - 1), "partly transparent")


def test_palette(tmp_path):
    colours = Image.fromarray(COLOUR).quantize(16)
    path = save(tmp_path, colours)
    np.testing.assert_array_equal(read(path), np.asarray(colours.convert("RGB")))
    np.testing.assert_array_equal(read(path, palette="index"), np.asarray(colours))
    greys = Image.fromarray(GREY).convert("P")
    np.testing.assert_array_equal(read(save(tmp_path, greys)), GREY)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {1: GREY, 2: GREY[:, ::-1], 3: GREY[::-1, ::-1], 4: GREY[::-1], 5: GREY.T,
              6: np.rot90(GREY, -1), 7: GREY[::-1, ::-1].T, 8: np.rot90(GREY)}[orientation]  # fmt: skip
    for name, options in (("a.png", {}), ("a.tif", {}), ("b.tif", {"compression": "tiff_deflate"})):
        np.testing.assert_array_equal(read(save(tmp_path, Image.fromarray(GREY), name, exif=exif, **options)), turned)


def test_alpha(tmp_path):
    opaque = np.dstack([COLOUR, np.full_like(GREY, 255)])
    np.testing.assert_array_equal(read(save(tmp_path, Image.fromarray(opaque))), COLOUR)
    opaque[3, 4, 3] = 200
    refused(save(tmp_path, Image.fromarray(opaque)), "partly transparent")
    np.testing.assert_array_equal(read(save(tmp_path, Image.fromarray(GREY).convert("LA"))), GREY)


def test_cmyk(tmp_path):
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    for name, options in (("a.tif", {}), ("a.jpg", {"quality": 100})):
        result = read(save(tmp_path, Image.fromarray(flat).convert("CMYK"), name, **options))
        assert result.shape == flat.shape and np.abs(result.astype(int) - flat).max() <= 3


def test_white_is_zero_tiff(tmp_path):
    path = save(tmp_path, Image.fromarray(GREY.astype(np.uint16) * 100), "a.tif", tiffinfo={262: 0})
    assert Image.open(path).tag_v2[262] == 0
    np.testing.assert_array_equal(read(path), 65535 - GREY.astype(np.uint16) * 100)


def test_tiffs_that_pillow_reads_wrongly(tmp_path):
    path = save(tmp_path, Image.fromarray(GREY), "a.tif", tiffinfo={339: 2})
    assert Image.open(path).tag_v2[339] == (2,)
    refused(path, "signed bytes")
    entries = [(256, 3, 1, 4), (257, 3, 1, 2), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 140),
               (277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 1, 48)]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    content = (head + body).ljust(134, b"\0") + struct.pack("<3H", 16, 16, 16) + RNG.bytes(48)
    (tmp_path / "deep.tif").write_bytes(content)
    assert Image.open(tmp_path / "deep.tif").mode == "RGB"
    refused(tmp_path / "deep.tif", "colour TIFF of 16 bits")


def test_one_bit_and_modes(tmp_path):
    mask = save(tmp_path, Image.fromarray(GREY > 100))
    np.testing.assert_array_equal(read(mask), (GREY > 100).astype(np.uint8))
    assert read(save(tmp_path, Image.fromarray(GREY)), mode="rgb").shape == (9, 13, 3)
    grey = read(save(tmp_path, Image.fromarray(COLOUR)), mode="grey")
    assert np.abs(grey.astype(int) - np.asarray(Image.fromarray(COLOUR).convert("L"))).max() <= 1
    with pytest.raises(InputError):
        RasterReader(mode="blue")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
def test_truncated(tmp_path, name):
    path = save(tmp_path, Image.fromarray(np.tile(COLOUR, (5, 5, 1))), name)
    content = path.read_bytes()
    for keep in (20, len(content) // 2, len(content) - 3):
        path.write_bytes(content[:keep])
        refused(path, "cut off|damaged")


def test_png_checksum(tmp_path):
    path = save(tmp_path, Image.fromarray(GREY))
    content = bytearray(path.read_bytes())
    start = content.index(b"IDAT") + 4
    raw = bytearray(zlib.decompress(bytes(content[start : content.index(b"IEND") - 8])))
    raw[5] ^= 1
    other = zlib.compress(bytes(raw), 0)
    content[start : start + min(4, len(other))] = other[:4]
    path.write_bytes(content)
    refused(path, "checksum")


def test_several_pages_bombs_and_strangers(tmp_path):
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    refused(save(tmp_path, pages[0], "pages.tif", save_all=True, append_images=pages[1:]), "2 pages")
    refused(save(tmp_path, pages[0], "moving.png", save_all=True, append_images=pages[1:]), "animated|pages")
    refused(save(tmp_path, pages[0], "small.png"), "needs .* GiB", max_memory=100)
    refused(save(tmp_path, pages[0], "a.gif"), "a GIF, which is not read here")
    (tmp_path / "empty.png").touch()
    refused(tmp_path / "empty.png", "empty file")
    (tmp_path / "text.png").write_text("no picture")
    refused(tmp_path / "text.png", "not a format")
    refused(tmp_path / "none.png", "not found")
