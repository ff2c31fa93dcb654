"""Mask files at building time: which values they hold, and copies with other numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import itk
import nibabel
import numpy as np
from PIL import Image

from monai_transfer.errors import InputError
from monai_transfer.manifest.itk_headers import check_itk_header
from monai_transfer.manifest.label_arrays import NEAR
from monai_transfer.manifest.layouts.base import derived_path

__all__ = [
    *("binarize", "is_picture_of_numbers", "label_names", "mask_target", "mask_values", "packed_colours", "read_mask"),
    *("renumber", "write_like"),
]

_MOST_CLASSES = 64
_FEW_VALUES = 32


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
            check_itk_header(path)
            return itk.array_from_image(itk.imread(str(path)))
        with Image.open(path) as image:
            if image.mode == "1":
                return np.asarray(image).astype(np.uint8)
            array = np.asarray(image)  # a palette picture gives its indices, which are the labels
    except Exception as error:  # each library has its own
        raise InputError(f"cannot be read as a mask ({error})", path=path, hint="export it again") from None
    if array.ndim == 3:
        if not _is_grey(array):
            raise InputError("is a colour picture", path=path, hint="store masks as one channel of class numbers")
        array = array[..., 0]
    return array


def _is_grey(array: np.ndarray) -> bool:
    """Whether the colours of a picture (H, W, channels), the last of 2 or 4 being alpha, are all grey."""
    colours = array[..., : 3 if array.shape[-1] > 2 else 1]
    return bool((colours == colours[..., :1]).all())


def packed_colours(path: Path, *, always: bool = False) -> np.ndarray | None:
    """The colours of a picture as one number 0xRRGGBB each (H, W); ``None`` where it is no picture, or not coloured.

    Args:
        path: any mask.
        always: of grey pictures too, though not of palettes, whose indices are the labels.
    """
    if path.name.lower().endswith((".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")):
        return None
    try:
        with Image.open(path) as image:
            if image.mode not in ("RGB", "RGBA") and not (always and image.mode in ("1", "L")):
                return None
            array = np.asarray(image.convert("RGB")).astype(np.uint32)
    except Exception:  # damaged: whoever reads it next says so
        return None
    if _is_grey(array) and not always:
        return None
    return (array[..., 0] << 16) | (array[..., 1] << 8) | array[..., 2]


def mask_values(path: Path) -> set[int]:
    """The class numbers in a mask; nearly whole numbers (of a scaled mask) count as those.

    Raises:
        InputError: it cannot be read, or holds values that are not whole.
    """
    values = np.unique(read_mask(path))
    if values.dtype.kind == "f":
        wrong = ~(np.abs(values - np.round(values)) <= NEAR)
        if wrong.any():
            hint = "make it again without interpolation (nearest neighbour)"
            raise InputError(f"mask holds {values[wrong][0]:g}, which is no class number", path=path, hint=hint)
    return {int(value) for value in np.round(values)}


def is_picture_of_numbers(path: Path) -> bool:
    """Whether a file holds few whole numbers, as masks do and images do not: at most 32, and a quarter of its size.

    A file that cannot be read is none: whoever reads it next says why.
    """
    colours = packed_colours(path)
    try:
        array = read_mask(path) if colours is None else colours
    except InputError:
        return False
    values = np.unique(array)
    few = len(values) <= min(_FEW_VALUES, max(2, array.size // 4))
    return few and bool(np.all(values == np.round(values)))


def label_names(masks: dict[Path, set[int]]) -> dict[int, str]:
    """Stand-in names for the values that masks hold: ``background``, then ``foreground`` or ``label_1, label_2, ...``.

    Values may have gaps (0, 128, 255).

    Raises:
        InputError: the values look like instances, or are negative, naming one file and the hint.
    """
    values = set().union({0}, *masks.values())
    worst = max(masks, key=lambda path: (max(masks[path], default=0), len(masks[path])))
    if min(values) < 0:
        worst = min(masks, key=lambda path: min(masks[path]))
        raise InputError(f"mask holds {min(values)}", path=worst, hint="class numbers begin at 0 (the background)")
    if len(values) > _MOST_CLASSES or _look_like_objects(masks):
        held = sorted(masks[worst])
        shown = ", ".join(map(str, held[:6])) + (", ..." if len(held) > 6 else "")
        hint = "--binarize makes foreground of all that is not 0 (instance masks), --labels 0=..,7=.. names values"
        fault = f"mask holds {shown}, and all masks {len(values)} values: objects rather than classes"
        raise InputError(fault, path=worst, hint=hint)
    if values == {0}:
        raise InputError("all masks are empty", path=next(iter(masks)), hint="name the classes with --labels")
    if len(values) == 2:
        return {0: "background", max(values): "foreground"}
    return {0: "background"} | {value: f"label_{value}" for value in sorted(values - {0})}


def _look_like_objects(masks: Mapping[Path, set[int]]) -> bool:
    """Whether every mask counts from 1 without a gap, to more than ten and each to another number: objects do."""
    tops = [max(values, default=0) for values in masks.values()]
    counted = all(values - {0} == set(range(1, top + 1)) for values, top in zip(masks.values(), tops, strict=True))
    return counted and max(tops) > 10 and len(set(tops)) > 2


def mask_target(path: Path, name: Path) -> Path:
    """Where a changed copy of a mask goes: ``name`` with the ending of ``path`` if it is a volume, else ``.png``."""
    lowered = path.name.lower()
    volume = next((s for s in (".nii.gz", ".nii", ".nrrd", ".mha") if lowered.endswith(s)), None)
    return name.with_name(f"{name.name}{volume or ('.mha' if lowered.endswith('.mhd') else '.png')}")


def renumber(path: Path, table: Mapping[int, int], target: Path) -> None:
    """Write a mask with other numbers to ``target``.

    Args:
        path: the mask.
        table: new number by old value.
        target: the file to write, see :func:`mask_target`.

    Raises:
        InputError: it cannot be read, or holds a value that is not in the table.
    """
    array = np.round(read_mask(path)).astype(np.int64)
    odd = sorted(set(np.unique(array).tolist()) - set(table))
    if odd:
        hint = f"its set declares {', '.join(map(str, sorted(table)))}"
        raise InputError(f"mask holds {odd[0]}, which is not declared", path=path, hint=hint)
    result = np.zeros(array.shape, dtype=np.uint8 if max(table.values()) < 256 else np.uint16)
    for old, new in table.items():
        result[array == old] = new
    write_like(path, result, target)


def binarize(path: Path, target: Path) -> None:
    """Write the mask ``path > 0`` as uint8 0 and 1 to ``target``; see :func:`write_like`."""
    colours = packed_colours(path)
    write_like(path, ((read_mask(path) if colours is None else colours) > 0).astype(np.uint8), target)


def write_like(path: Path, array: np.ndarray, target: Path) -> None:
    """Write whole numbers to ``target`` with the geometry of the mask ``path`` (PNG for pictures)."""
    with derived_path(target) as temporary:
        if target.name.endswith((".nii", ".nii.gz")):
            source = nibabel.load(path)
            header = source.header.copy()
            header.set_data_dtype(array.dtype)
            header.set_slope_inter(1, 0)
            nibabel.save(type(source)(array, source.affine, header), temporary)
        elif target.name.endswith(".png"):
            Image.fromarray(array).save(temporary)
        else:
            check_itk_header(path)
            source, image = itk.imread(str(path)), itk.image_from_array(array)
            image.CopyInformation(source)
            itk.imwrite(image, str(temporary), compression=True)
