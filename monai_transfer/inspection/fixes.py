"""Safe fixes, always written as corrected copies: what loses nothing and needs no knowledge that the files lack.

Masks: values near whole numbers are rounded, a lone 255 of a binary mask becomes 1, pictures become plain grey indices.
Images: palette, rotated, opaque-alpha and CMYK pictures become plain grey or RGB. NIfTI: an unusable sform (singular,
or not of the header's voxel size) is written anew from a sound qform, and declared micrometres or metres become mm.
A qform that is less than half a voxel and one degree off the sform is written anew from it, so that both say one thing.
A qform and sform that are both sound and disagree by more are *not* fixed: only people can know which is true.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

from monai_transfer.data.readers import NiftiReader, SafeReader, Volume
from monai_transfer.data.readers.nifti import agreement, forms_apart, nifti_kind
from monai_transfer.errors import InputError
from monai_transfer.files import atomic_path

__all__ = ["fix_label", "fix_picture", "fix_volume", "fixable_volume"]

_SCALE = {1: 1000.0, 3: 0.001}
"""mm per metre and per micrometre, by NIfTI's unit code."""


def fix_label(path: str | Path, target: Path, codes: Sequence[str]) -> Path:
    """Write a corrected copy of a mask beside no original: ``target`` without suffix; returns the file written.

    Args:
        path: the mask.
        target: folder and name, without a suffix (``.png`` or ``.nii.gz`` is added).
        codes: which faults to fix: ``label-fraction``, ``label-scale``, ``label-picture``.

    Raises:
        InputError: the mask cannot be read.
    """
    volume = SafeReader(palette="index").read_volume(path)
    array = volume.array[..., 0] if volume.channel_last else volume.array
    if "label-fraction" in codes:
        array = np.round(array)
    if "label-scale" in codes:
        array = array != 0
    kind = np.uint8 if array.max() <= 255 else np.uint16
    return _write(Volume(array.astype(kind), volume.affine), target)


def fix_picture(path: str | Path, target: Path) -> Path:
    """Write a palette, rotated, opaque-alpha or CMYK picture as a plain PNG; grey where all its colours are grey."""
    volume = SafeReader().read_volume(path)
    array = volume.array
    if volume.channel_last and (array == array[..., :1]).all():
        array = array[..., 0]
    return _write(Volume(array, None, channel_last=array.ndim == 3), target)


def fixable_volume(path: str | Path) -> bool:
    """Whether ``fix_volume`` can write a sound copy of a NIfTI that the reader refuses."""
    return _fixed_content(path) is not None


def fix_volume(path: str | Path, target: Path) -> Path:
    """Write a NIfTI whose sform is unusable, or whose lengths are not in mm, with the sform that its header implies.

    Raises:
        InputError: the header does not imply one.
    """
    content = _fixed_content(path)
    if content is None:
        raise InputError(
            "cannot be fixed safely", path=path, hint="only its maker can say what is meant: export it again"
        )
    out = target.with_name(f"{target.name}.nii.gz")
    with atomic_path(out) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0))
    return out


def _fixed_content(path: str | Path) -> bytes | None:
    path = Path(path)
    if not path.is_file():  # opening a pipe would wait for ever
        return None
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as stream:
            start = stream.read(540)
            kind = nifti_kind(start)
            if kind is None:
                return None
            header = kind.header_class(start[: _size(kind)], check=False)
            if not _fix_header(header):
                return None
            rest = start[_size(kind) :] + stream.read()
    except Exception:  # damaged beyond its geometry, or no file at all: nothing is fixed
        return None
    content = header.binaryblock + rest
    return content if _reads(content) else None


def _size(kind: Any) -> int:
    return int(kind.header_class.sizeof_hdr)


def _fix_header(header: nib.Nifti1Header) -> bool:
    """Correct units and sform in place; whether anything was changed."""
    changed = False
    unit = int(header["xyzt_units"]) & 7
    if unit in _SCALE:
        scale = _SCALE[unit]
        header["pixdim"][1:4] *= scale
        for field in ("srow_x", "srow_y", "srow_z", "qoffset_x", "qoffset_y", "qoffset_z"):
            header[field] = header[field] * scale
        header["xyzt_units"] = (int(header["xyzt_units"]) & ~7) | 2
        changed = True
    if int(header["sform_code"]) > 0 and int(header["qform_code"]) > 0:
        sform = header.get_sform()
        sizes = np.linalg.norm(sform[:3, :3], axis=0)
        usable = (
            np.all(np.isfinite(sform)) and np.all(sizes > 0) and abs(np.linalg.det(sform[:3, :3])) > 1e-3 * sizes.prod()
        )
        if not usable or not np.allclose(sizes, np.abs(header["pixdim"][1:4]), rtol=1e-3, atol=1e-4):
            header.set_sform(header.get_qform(), int(header["qform_code"]))
            changed = True
        elif forms_apart(header.get_qform(), sform, (*header.get_data_shape(), 1, 1)[:3])[0] > 0.01 * sizes.min():
            changed = _one_affine(header, sform) or changed
    return changed


def _one_affine(header: nib.Nifti1Header, sform: np.ndarray) -> bool:
    """Write the sform to the qform, in place, where the reader takes both; whether it was written.

    A sheared sform, which no qform holds, leaves the qform unset.
    """
    shape = (*header.get_data_shape(), 1, 1)[:3]
    try:
        agreement(header.get_qform(), sform, shape)
    except InputError:
        return False
    header.set_qform(sform, int(header["sform_code"]))
    if not np.allclose(header.get_qform(), sform, rtol=1e-3, atol=1e-3):
        header["qform_code"] = 0
    return True


def _reads(content: bytes) -> bool:
    """Whether the reader takes the fixed content, so that a fix never makes a new fault."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fixed.nii"
        file.write_bytes(content)
        try:
            NiftiReader().read_volume(file)
        except InputError:
            return False
    return True


def _write(volume: Volume, target: Path) -> Path:
    """As ``.png`` where there is no geometry, else ``.nii.gz``."""
    if volume.affine is None:
        out = target.with_name(f"{target.name}.png")
        with atomic_path(out) as temporary:
            Image.fromarray(np.ascontiguousarray(np.swapaxes(volume.array, 0, 1))).save(temporary)
        return out
    out = target.with_name(f"{target.name}.nii.gz")
    image = nib.Nifti1Image(volume.array, volume.affine)
    image.set_qform(volume.affine, code=1)
    image.set_sform(volume.affine, code=1)
    image.header.set_xyzt_units("mm")
    with atomic_path(out) as temporary:
        image.to_filename(temporary)
    return out
