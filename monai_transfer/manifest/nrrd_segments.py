"""3D Slicer's ``.seg.nrrd``: named segments, in one layer of numbers or, where they overlap, in several."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.manifest.contours import Drawing
from monai_transfer.manifest.laterality import find_sides
from monai_transfer.manifest.layouts.base import FolderContents, count
from monai_transfer.manifest.nrrd import read_header, read_layers
from monai_transfer.manifest.structures import Structures

__all__ = ["draw_segments", "segments"]

_FIELD = re.compile(r"^Segment(\d+)_(Name|LabelValue|Layer|Tags)$")
_SIDE = re.compile(r"\b(?:7771000|24028007|G-A101|G-A100)\^(Left|Right)", re.IGNORECASE)


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
        (_name(one, f"segment_{i}"), int(one.get("LabelValue", 1)), int(one.get("Layer", 0)))
        for i, one in sorted(fields.items())
    ]
    if not found:
        raise InputError("names no segment", path=path, hint="save it as a segmentation, or call it .nrrd")
    return found


def _name(fields: Mapping[str, str], default: str) -> str:
    """The segment's name, and the side that its terminology gives where the name has none."""
    name = fields.get("Name", default)
    side = _SIDE.search(fields.get("Tags", ""))
    return f"{name} {side[1].lower()}" if side and not find_sides([name]) else name


def draw_segments(
    founds: Sequence[FolderContents],
    names: Sequence[Sequence[str]],
    given: Sequence[str] | Mapping[Any, str] | None,
    folder: Path,
    overlaps: str = "order",
) -> list[str]:
    """Turn every ``.seg.nrrd`` label into a NIfTI mask in ``folder``, numbered by segment name over the whole set.

    Args:
        founds: what was read, changed in place; names: the cases' names, for the files.
        given: class names as the user gives them, also as patterns; see ``Structures.of``.
        folder: where the masks go.
        overlaps: ``order`` or ``regions``.

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
    structures = Structures.of([[one[0] for one in segments(path)] for _, _, path in chosen], given, overlaps)
    for case, name, path in chosen:
        target = folder / f"{name}.nii.gz"
        structures.add(*_read(path), target)
        case.label = target
    notes = structures.finish()
    for found in founds:
        found.labels, found.regions, found.drawn = structures.labels, structures.regions, True
    return [f"{count(len(chosen), 'segmentation')} (.seg.nrrd) drawn to {folder}", *notes]


def _read(path: Path) -> tuple[dict[str, Drawing], np.ndarray]:
    layers, affine = read_layers(path)
    drawn: dict[str, Drawing] = {}
    for name, value, layer in segments(path):
        one = Drawing(layers[..., layer] == value)
        drawn[name] = drawn[name].join(one) if name in drawn else one
    return drawn, affine
