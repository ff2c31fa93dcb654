"""NIfTI: equal to nibabel where the file is sound, one line where it is not."""

from __future__ import annotations

import gzip
import struct

import nibabel as nib
import numpy as np
import psutil
import pytest
from monai.data import NibabelReader
from monai.transforms import LoadImage

from monai_transfer.data.readers import NiftiReader, SafeReader, memory_limit
from monai_transfer.errors import InputError
from tests.data.readers.refusals import refused


def rewrite(path, change):
    """Change the unpacked bytes of a .nii.gz and pack them again, with a right CRC."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    changed = change(content)
    path.write_bytes(gzip.compress(bytes(content if changed is None else changed)))
    return path


def patch(offset, kind, *values):
    return lambda content: struct.pack_into("<" + kind, content, offset, *values)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", ">i2", ">f4"])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_equals_nibabel_reader(write_nifti, volume, dtype, name):
    path = write_nifti(name, array=volume.clip(0, 250).astype(dtype))
    ours, theirs = (LoadImage(reader=r)(path) for r in (SafeReader(), NibabelReader()))
    np.testing.assert_array_equal(ours.array, theirs.array)
    np.testing.assert_array_equal(ours.affine, theirs.affine)
    assert ours.dtype == theirs.dtype


def test_scaling_sform_only_qform_only_and_four_dimensions(write_nifti, volume):
    def scale(header):
        header.set_slope_inter(0.5, -3)

    four = np.stack([volume, volume + 1], -1)
    sources = [
        write_nifti("scaled.nii.gz", edit=scale),
        write_nifti("s.nii", edit=lambda h: h.set_qform(None, code=0)),
        write_nifti("q.nii", edit=lambda h: h.set_sform(None, code=0)),
        write_nifti("four.nii.gz", array=four),
        write_nifti("thin.nii.gz", array=volume[:, :, :1]),
    ]
    for path in sources:
        ours, theirs = (LoadImage(reader=r, ensure_channel_first=True)(path) for r in (SafeReader(), NibabelReader()))
        np.testing.assert_array_equal(ours.array, theirs.array)
        np.testing.assert_array_equal(ours.affine, theirs.affine)
    refused(sources[3], "2 channels .4D. where 1 are expected", channels=1)


def test_nifti2_and_wrong_name(tmp_path, write_nifti, volume):
    path = tmp_path / "two.nii"
    nib.Nifti2Image(volume, np.diag([1, 2, 3, 1.0])).to_filename(path)
    np.testing.assert_array_equal(SafeReader().read_volume(path).array, volume)
    packed = write_nifti("packed.nii.gz").rename(tmp_path / "packed.nii")  # gzip under a name that does not say so
    np.testing.assert_array_equal(SafeReader().read_volume(packed).array, volume)


def test_rgb_triples_become_channels(tmp_path, volume):
    colours = np.zeros(volume.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"] = volume.clip(0, 255)
    nib.Nifti1Image(colours, np.eye(4)).to_filename(tmp_path / "rgb.nii.gz")
    result = SafeReader().read_volume(tmp_path / "rgb.nii.gz")
    assert result.channels == 3 and not result.array[..., 0].any()
    np.testing.assert_array_equal(result.array[..., 1], volume.clip(0, 255))


def mirror(header):
    affine = header.get_sform()
    affine[0] *= -1
    header.set_sform(affine, code=1)


def set_fields(**fields):
    def edit(header):
        for name, value in fields.items():
            header[name] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "pattern"),
    [
        (mirror, "qform and sform disagree by up to"),
        (lambda h: h.set_sform(np.array([[0, 0, 0, 1]] + [[0] * 4] * 3) + h.get_sform(), code=1), "by up to 1 mm"),
        (lambda h: (h.set_sform(None, code=0), h.set_qform(None, code=0)), "no affine is declared"),
        (set_fields(srow_x=[0, 0, 0, 0]), "singular|voxel size"),
        (set_fields(srow_x=[np.nan, 0, 0, 0]), "singular or not finite"),
        (lambda h: (h.set_qform(None, code=0), h.set_sform(np.diag([2, 2, 5, 1.0]), code=1)), "sform's voxel size"),
        (set_fields(xyzt_units=3), "micrometres"),
        (set_fields(xyzt_units=1), "metres"),
        (set_fields(qform_code=77), "unknown qform_code 77"),
        (set_fields(pixdim=[1, np.nan, 1, 1, 0, 0, 0, 0]), "implausible"),
    ],
)
def test_geometry_is_refused(write_nifti, edit, pattern):
    refused(write_nifti(edit=edit), pattern)


@pytest.mark.parametrize("size", [0.001, 100.0])
def test_implausible_spacing(write_nifti, size):
    path = write_nifti(affine=np.diag([size, size, size, 1]))
    refused(path, "implausible")
    NiftiReader(spacing_limits=(1e-4, 1e3)).read_volume(path)  # unless the user says that it is true


def test_small_rounding_between_forms_is_no_fault(write_nifti):
    def jitter(header):
        affine = header.get_sform()
        affine[:3, 3] += 0.02
        header.set_sform(affine, code=1)

    write_nifti(edit=jitter)
    SafeReader().read_volume(write_nifti(edit=jitter))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(write_nifti, volume, bad):
    array = volume.astype(np.float32)
    array[1, 2, 3] = bad
    refused(write_nifti(array=array), "1 of 960 voxels are NaN or infinite")


def test_values_beyond_float32(write_nifti, volume):
    refused(write_nifti(array=volume * 1e300), "too large for float32")


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (lambda c: c[:-1], "header promises"),
        (lambda c: c + b"\0", "more data than its header promises"),
        (lambda c: c[:100], "100 bytes, less than a NIfTI header"),
        (patch(42, "h", 13), "more data|holds"),
        (patch(42, "h", 11), "more data"),
        (patch(42, "h", -3), "impossible shape"),
        (patch(40, "h", 9), "impossible shape|broken"),
        (patch(70, "h", 999), "broken NIfTI header"),
        (patch(70, "h", 32), "cannot be used"),
        (patch(108, "f", 1e9), "data offset"),
        (patch(112, "f", np.inf), "broken NIfTI header"),
        (patch(344, "4s", b"ni1\0"), "not a single-file NIfTI"),
        (patch(0, "i", 7), "gzip data that is no NIfTI"),
    ],
)
def test_broken_content(write_nifti, change, pattern):
    refused(rewrite(write_nifti(), change), pattern)


def test_truncated_gzip_names_the_file(write_nifti):
    path = write_nifti()
    content = path.read_bytes()
    for keep in (3, 30, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:keep])
        refused(path, "damaged gzip data|header promises|no NIfTI")


def test_bit_flip_in_gzip_is_seen(write_nifti):
    path = write_nifti()
    content = bytearray(path.read_bytes())
    content[len(content) - 6] ^= 4  # in the CRC, which nibabel never reaches
    path.write_bytes(content)
    refused(path, "damaged gzip data .*CRC")


def test_bomb_is_refused_before_allocation(write_nifti):
    path = rewrite(write_nifti(), patch(42, "3h", 1024, 1024, 2048))
    before = psutil.Process().memory_info().rss
    refused(path, "needs .* GiB by its header, and 4 GiB are allowed", max_memory="4GiB")
    assert psutil.Process().memory_info().rss - before < 50 * 2**20


def test_content_longer_than_declared_is_not_unpacked(write_nifti):
    path = rewrite(write_nifti(), lambda c: c + bytes(200 * 2**20))
    before = psutil.Process().memory_info().rss
    refused(path, "more data than its header promises")
    assert psutil.Process().memory_info().rss - before < 100 * 2**20


def test_memory_limit(monkeypatch):
    assert memory_limit("1.5 GiB") == 1610612736 and memory_limit(10) == 10
    monkeypatch.setenv("MONAI_TRANSFER_MAX_MEMORY", "300MB")
    assert memory_limit() == 300_000_000
    for bad in ("lots", "-1", "3 parsecs"):
        with pytest.raises(InputError):
            memory_limit(bad)


def test_header_text_is_dropped(write_nifti):
    path = write_nifti(edit=set_fields(descrip=b"PLANTEDNAME", db_name=b"PLANTEDDB", aux_file=b"PLANTEDFILE"))
    assert "PLANTED" not in str(LoadImage(reader=SafeReader())(path).meta)


def test_real_files_equal_nibabel(real_data):
    for path in [
        *sorted(real_data.glob("hippocampus/*Tr/*.nii.gz"))[::60],
        *sorted(real_data.glob("sarcoma/*/*/*042*")),
    ]:
        ours, theirs = (LoadImage(reader=r)(path) for r in (SafeReader(), NibabelReader()))
        np.testing.assert_array_equal(ours.array, theirs.array)
        np.testing.assert_array_equal(ours.affine, theirs.affine)
