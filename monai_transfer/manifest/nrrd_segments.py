"""3D Slicer's ``.seg.nrrd``: named segments, in one layer of numbers or, where they overlap, in several."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.manifest.layouts.base import FolderContents, count, derived_path
from monai_transfer.manifest.nrrd import read_header, read_layers
from monai_transfer.manifest.structures import Numbering

__all__ = ["draw_segments", "segments"]

_FIELD = re.compile(r"^Segment(\d+)_(Name|LabelValue|Layer)$")


def segments(path: Path) -> list[tuple[str, int, int]]:
    """Name, number and layer of every segment in the file's header.

    Raises:
        InputError: it is no NRRD file, or names no segment.
    """
    fields: dict[int, dict[str, str]] = {}
    for key, value in read_header(path)[0].items():
        match = _FIELD.match(key)
        if match:
            fields.setdefault(int(match[1]), {})[match[2]] = value
    found = [
        (one.get("Name", f"segment_{i}"), int(one.get("LabelValue", 1)), int(one.get("Layer", 0)))
        for i, one in sorted(fields.items())
    ]
    if not found:
        raise InputError("names no segment", path=path, hint="save it as a segmentation, or call it .nrrd")
    return found


def draw_segments(
    founds: Sequence[FolderContents],
    names: Sequence[Sequence[str]],
    given: Sequence[str] | Mapping[Any, str] | None,
    folder: Path,
) -> list[str]:
    """Turn every ``.seg.nrrd`` label into a NIfTI mask in ``folder``, numbered by segment name over the whole set.

    Args:
        founds: what was read, changed in place; names: the cases' names, for the files.
        given: class names as the user gives them, also as patterns; see ``Numbering.settle``.
        folder: where the masks go.

    Returns:
        notes: what overlaps and what was left out. Empty where there is no such file.

    Raises:
        InputError: only some masks are of this kind, the names fit no segment, or a file cannot be read.
    """
    cases = [(c, n) for f, part in zip(founds, names, strict=True) for c, n in zip(f.cases, part, strict=True)]
    masks = [(case, name, case.label) for case, name in cases if isinstance(case.label, Path)]
    chosen = [(case, name, path) for case, name, path in masks if path.name.lower().endswith(".seg.nrrd")]
    if not chosen:
        return []
    if len(chosen) < len(masks):
        hint = "build and merge manifests of the two kinds one by one"
        raise InputError("some masks are .seg.nrrd with names and some plain numbers", path=chosen[0][2], hint=hint)
    numbering = Numbering.of([[one[0] for one in segments(path)] for _, _, path in chosen], given)
    for case, name, path in chosen:
        target = folder / f"{name}.nii.gz"
        _draw(path, numbering, target)
        case.label = target
    for found in founds:
        found.labels, found.drawn = dict(numbering.labels), True
    return [f"{count(len(chosen), 'segmentation')} (.seg.nrrd) drawn to {folder}", *numbering.notes()]


def _draw(path: Path, numbering: Numbering, target: Path) -> None:
    layers, affine = read_layers(path)
    masks: dict[int, np.ndarray] = {}
    for name, value, layer in segments(path):
        number = numbering.numbers.get(name)
        if number is not None:
            mask = layers[..., layer] == value
            masks[number] = masks[number] | mask if number in masks else mask
    with derived_path(target) as temporary:
        drawn = numbering.combine(masks, layers.shape[:3])
        nibabel.save(nibabel.Nifti1Image(drawn, affine), temporary)
