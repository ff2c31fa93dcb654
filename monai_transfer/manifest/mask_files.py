"""Masks that have to be written anew before they can be used: flat or one-hot ones, and binary copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from monai_transfer.errors import InputError
from monai_transfer.manifest.layouts.base import RawCase, count, derived_path, is_picture
from monai_transfer.manifest.masks import binarize, mask_target
from monai_transfer.manifest.options import Progress

__all__ = ["binarize_masks", "flatten_masks"]


def binarize_masks(cases: Sequence[RawCase], names: Sequence[str], folder: Path, progress: Progress) -> list[str]:
    """Put a mask of everything that is not 0 in the place of every mask, in ``folder``; returns a note."""
    pairs = [(case, name) for case, name in zip(cases, names, strict=True) if isinstance(case.label, Path)]
    for case, name in progress(pairs, "Writing binary masks"):
        target = mask_target(case.label, folder / name)
        binarize(case.label, target)
        case.label = target
    return [f"{count(len(pairs), 'binary mask')} written to {folder}"]


def flatten_masks(cases: Sequence[RawCase], names: Sequence[str], folder: Path, progress: Progress) -> list[str]:
    """Put plain masks of class numbers in the place of NIfTI masks that are none, in place; returns notes.

    A NIfTI of (x, y, 1) that belongs to a picture becomes a PNG. A fourth axis of 0 and 1 is one channel per class
    (one-hot): the background's may be there or not.

    Raises:
        InputError: a mask has a fourth axis that is not one-hot, or a picture's mask has another size.
    """
    jobs = []
    for case, name in zip(cases, names, strict=True):
        if isinstance(case.label, Path) and case.label.name.lower().endswith((".nii", ".nii.gz")):
            shape = _shape(case.label)
            if shape is not None and (len(shape) > 3 or (is_picture(case.images[0]) and shape[2:] in ((), (1,)))):
                jobs.append((case, name))
    flat = hot = 0
    for case, name in progress(jobs, "Writing plain masks") if jobs else ():
        assert isinstance(case.label, Path)
        source = nibabel.load(case.label)
        array = np.asanyarray(source.dataobj)
        if array.ndim > 3:
            array, hot = _from_one_hot(array, case.label), hot + 1
        if is_picture(case.images[0]):
            target, flat = folder / f"{name}.png", flat + 1
            _save_picture(_as_picture(array, case), target)
        else:
            target = folder / f"{name}.nii.gz"
            with derived_path(target) as temporary:
                nibabel.save(nibabel.Nifti1Image(array, source.affine), temporary)
        case.label = target
    notes = []
    if flat:
        notes.append(f"{count(flat, 'NIfTI mask')} of pictures written as PNG to {folder}: look at one")
    if hot:
        notes.append(f"{count(hot, 'one-hot mask')} written as class numbers to {folder}")
    return notes


def _shape(path: Path) -> tuple[int, ...] | None:
    try:
        shape = tuple(int(n) for n in nibabel.load(path).shape)
    except Exception:  # damaged: whoever reads it next says so
        return None
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _from_one_hot(array: np.ndarray, path: Path) -> np.ndarray:
    array = array.reshape(*array.shape[:3], *(n for n in array.shape[3:] if n != 1))
    if array.ndim == 3:
        return array
    hint = "store one channel with class numbers; structures that overlap as numbers of their own, and regions of them"
    if array.ndim > 4 or not np.isin(array, (0, 1)).all():
        raise InputError(f"mask has the shape {' x '.join(map(str, array.shape))}", path=path, hint=hint)
    total = array.sum(-1)
    if total.max() > 1:
        share = float((total > 1).mean())
        raise InputError(f"its channels overlap in {share:.2%} of the voxels", path=path, hint=hint)
    numbers = array.argmax(-1) if total.min() == 1 else (array.argmax(-1) + 1) * (total == 1)
    return numbers.astype(np.uint8)


def _as_picture(array: np.ndarray, case: RawCase) -> np.ndarray:
    """Rows and columns of a picture from (x, y): transposed, unless only the other way has the image's size."""
    plane = array[..., 0] if array.ndim == 3 else array
    with Image.open(case.images[0]) as image:
        width, height = image.size
    if plane.shape == (width, height):
        return plane.T
    if plane.shape == (height, width):
        return plane
    hint = "find the mask that belongs to this image"
    fault = f"mask of {plane.shape[0]} x {plane.shape[1]} for a picture of {width} x {height}"
    raise InputError(fault, path=case.label if isinstance(case.label, Path) else None, hint=hint)


def _save_picture(array: np.ndarray, target: Path) -> None:
    whole = np.round(array)
    kind = np.uint8 if whole.max() < 256 else np.uint16
    with derived_path(target) as temporary:
        Image.fromarray(np.ascontiguousarray(whole.astype(kind))).save(temporary, format="PNG")
