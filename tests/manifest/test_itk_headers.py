"""Headers that lie are refused before ITK's C++ code sees them; sound ones pass with the bytes that they promise."""

from __future__ import annotations

import itk
import numpy as np
import pytest

from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError
from monai_transfer.manifest.itk_headers import MAX_HEADER, check_itk_header
from monai_transfer.manifest.masks import read_mask

NRRD = """NRRD0004
type: uint8
dimension: 3
sizes: 4 4 4
space: left-posterior-superior
space directions: (1,0,0) (0,1,0) (0,0,1)
space origin: (0,0,0)
encoding: raw
"""
META = "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\n"
LOCAL = "ElementDataFile = LOCAL\n"


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd"])
def test_what_itk_writes_passes(tmp_path, name, compression, kind):
    array = np.random.default_rng(0).integers(0, 9, (4, 5, 6)).astype(kind)
    itk.imwrite(itk.image_from_array(array), str(tmp_path / name), compression=compression)
    assert check_itk_header(tmp_path / name) == array.nbytes
    np.testing.assert_array_equal(read_mask(tmp_path / name), array)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dimension: 3", "dimension: 99"),
        ("dimension: 3", f"dimension: {'9' * 5000}"),
        ("dimension: 3", "dimension: 2"),
        ("sizes: 4 4 4", "sizes: -4 4 4"),
        ("sizes: 4 4 4", "sizes: 0 4 4"),
        ("sizes: 4 4 4", "sizes: 4.5 nan inf"),
        ("sizes: 4 4 4", f"sizes: {'9' * 5000} 4 4"),
        ("sizes: 4 4 4", "sizes: 100000 100000 100000"),
        ("sizes: 4 4 4\n", ""),
        ("uint8", "block"),
        ("encoding: raw", "encoding: $x"),
        ("encoding: raw", "encoding: raw\nbyte skip: -9"),
        ("encoding: raw", "encoding: raw\nline skip: 1e9"),
        ("encoding: raw", "encoding: raw\ndata file: /etc/passwd"),
        ("encoding: raw", "encoding: raw\nDATA FILE: ../../etc/passwd"),
        ("encoding: raw", "encoding: raw\ndata file: LIST\n/etc/passwd"),
        ("encoding: raw", "encoding: raw\ndatafile: %d.raw 0 1000000000 1"),
        ("encoding: raw", f"encoding: raw\n#{'x' * MAX_HEADER}"),
        ("encoding: raw", "encoding: raw" + "\n# x" * (MAX_HEADER // 4)),
    ],
)
def test_nrrd_headers_that_lie(tmp_path, old, new):
    path = tmp_path / "a.nrrd"
    path.write_bytes(NRRD.replace(old, new).encode() + b"\n" + bytes(64))
    refused(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("NDims = 3", "NDims = 99"),
        ("NDims = 3", "NDims = 999999999"),
        ("DimSize = 4 4 4", "DimSize = -4 4 4"),
        ("DimSize = 4 4 4", "DimSize = 10000 10000 10000"),
        ("DimSize = 4 4 4\n", ""),
        ("MET_UCHAR", "MET_STRING"),
        ("MET_UCHAR", "MET_UCHAR\nElementNumberOfChannels = 2000000000"),
        ("MET_UCHAR", "MET_UCHAR\nElementNumberOfChannels = -1"),
        ("LOCAL", "/etc/passwd"),
        ("LOCAL", "LIST\n/etc/passwd"),
        ("LOCAL", "a%d.raw 0 9 1"),
        (LOCAL, "Comment = x\n" * (MAX_HEADER // 12)),
        (LOCAL, ""),
    ],
)
def test_meta_image_headers_that_lie(tmp_path, old, new):
    path = tmp_path / "a.mha"
    path.write_bytes((META + LOCAL).replace(old, new).encode() + bytes(64))
    refused(path)


def refused(path):
    for read in (check_itk_header, SafeReader().read_volume, read_mask):
        with pytest.raises(InputError) as caught:
            read(path)
        assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)
