"""Mask files at building time: which values they hold, and binary copies of instance masks."""

from __future__ import annotations

from pathlib import Path

import itk
import nibabel
import numpy as np
from PIL import Image

from monai_transfer.errors import InputError
from monai_transfer.manifest.layouts.base import derived_path

__all__ = ["binarize", "label_names", "mask_values", "read_mask"]

_MOST_CLASSES = 64


def read_mask(path: Path) -> np.ndarray:
    """The mask's values, as stored (spatial axes only; the order of axes is the file library's).

    Raises:
        InputError: it cannot be read, or holds colours instead of numbers.
    """
    name = path.name.lower()
    try:
        if name.endswith((".nii", ".nii.gz")):
            return np.asanyarray(nibabel.load(path).dataobj)
        if name.endswith((".nrrd", ".mha", ".mhd")):
            return itk.array_from_image(itk.imread(str(path)))
        with Image.open(path) as image:
            if image.mode == "1":
                return np.asarray(image).astype(np.uint8)
            array = np.asarray(image)  # a palette picture gives its indices, which are the labels
    except Exception as error:  # each library has its own
        raise InputError(f"cannot be read as a mask ({error})", path=path) from None
    if array.ndim == 3:
        if not np.array_equal(array[..., 0], array[..., 1]):
            raise InputError("is a colour picture", path=path, hint="store masks as one channel of class numbers")
        array = array[..., 0]
    return array


def mask_values(path: Path) -> set[int]:
    """The class numbers in a mask.

    Raises:
        InputError: it cannot be read, or holds values that are not whole.
    """
    values = np.unique(read_mask(path))
    if values.dtype.kind == "f" and (not np.isfinite(values).all() or (values != np.round(values)).any()):
        odd = next(value for value in values if not np.isfinite(value) or value != np.round(value))
        raise InputError(f"mask holds {odd}, which is no class number", path=path, hint="store whole numbers")
    return {int(value) for value in values}


def label_names(masks: dict[Path, set[int]]) -> dict[int, str]:
    """Stand-in names for the values that masks hold: ``background``, then ``foreground`` or ``label_1, label_2, ...``.

    Raises:
        InputError: the values do not look like class numbers from 0, naming one file and the hint.
    """
    values = set().union({0}, *masks.values())
    worst = max(masks, key=lambda path: (max(masks[path]), len(masks[path])))
    if min(values) < 0:
        worst = min(masks, key=lambda path: min(masks[path]))
        raise InputError(f"mask holds {min(values)}", path=worst, hint="class numbers begin at 0 (the background)")
    if values != set(range(len(values))) or len(values) > _MOST_CLASSES:
        held = sorted(masks[worst])
        shown = ", ".join(map(str, held[:6])) + (", ..." if len(held) > 6 else "")
        hint = (
            "--binarize makes foreground of all that is not 0 (instance masks, 0/255), --labels 0=..,7=.. names values"
        )
        raise InputError(f"mask holds {shown}: not class numbers from 0 without a gap", path=worst, hint=hint)
    if values == {0}:
        raise InputError("all masks are empty", path=next(iter(masks)), hint="name the classes with --labels")
    if len(values) == 2:
        return {0: "background", 1: "foreground"}
    return {0: "background"} | {value: f"label_{value}" for value in sorted(values - {0})}


def binarize(path: Path, target: Path) -> None:
    """Write the mask ``path > 0`` as uint8 0 and 1 to ``target`` (PNG for pictures, else in the format of ``path``).

    The geometry of volumes is kept.
    """
    foreground = (read_mask(path) > 0).astype(np.uint8)
    with derived_path(target) as temporary:
        if target.name.endswith((".nii", ".nii.gz")):
            source = nibabel.load(path)
            header = source.header.copy()
            header.set_data_dtype(np.uint8)
            header.set_slope_inter(1, 0)
            nibabel.save(type(source)(foreground, source.affine, header), temporary)
        elif target.name.endswith(".png"):
            Image.fromarray(foreground).save(temporary)
        else:
            source, image = itk.imread(str(path)), itk.image_from_array(foreground)
            image.CopyInformation(source)
            itk.imwrite(image, str(temporary), compression=True)
