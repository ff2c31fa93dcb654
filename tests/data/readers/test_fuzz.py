"""Seeded damage: a gzip NIfTI and a PNG load identically or are refused; no format raises anything but one line."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError


def damaged(content: bytes, seed: int) -> bytes:
    """One flipped bit, a cut, or a run of bytes overwritten, by the seed."""
    rng = np.random.default_rng(seed)
    data = bytearray(content)
    at = int(rng.integers(len(data)))
    kind = seed % 3
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[at:]
    else:
        data[at : at + 8] = rng.bytes(min(8, len(data) - at))
    return bytes(data)


def read_or_refuse(path):
    try:
        volume = SafeReader().read_volume(path)
    except InputError as error:
        assert "\n" not in str(error) and str(path) in str(error), str(error)
        return None
    return volume


def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 30), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("kind", ["nii.gz", "png"])
def test_identical_or_refused(tmp_path, write_nifti, kind):
    path = write_nifti() if kind == "nii.gz" else picture(tmp_path)
    content = path.read_bytes()
    sound = SafeReader().read_volume(path)
    refusals = 0
    for seed in range(300):
        path.write_bytes(damaged(content, seed))
        result = read_or_refuse(path)
        if result is None:
            refusals += 1
            continue
        np.testing.assert_array_equal(result.array, sound.array, err_msg=f"seed {seed} is silently wrong")
        if sound.affine is not None:
            np.testing.assert_array_equal(result.affine, sound.affine)
    assert refusals > 250  # nearly every byte matters


@pytest.mark.parametrize("kind", ["nii", "dcm", "series", "jpg", "tif"])
def test_only_one_kind_of_error(tmp_path, write_nifti, make_series, kind):
    if kind == "nii":
        path = target = write_nifti("scan.nii")
    elif kind in ("dcm", "series"):
        folder = make_series()
        target = sorted(folder.iterdir())[3]
        path = folder if kind == "series" else target
    else:
        path = target = picture(tmp_path).with_suffix(f".{kind}")
        Image.open(tmp_path / "picture.png").save(path)
    content = target.read_bytes()
    for seed in range(80):
        changed = bytearray(damaged(content, seed))
        if seed % 2:  # half of the damage into the header
            changed = bytearray(damaged(content[:700], seed)) + content[700:]
        target.write_bytes(changed)
        read_or_refuse(path)
