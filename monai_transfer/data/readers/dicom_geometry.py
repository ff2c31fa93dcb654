"""Where DICOM slices lie in space: ordered by position along the slice normal, evenly spaced, complete and not sheared.

File names, InstanceNumber and times are not used, since they may be shuffled or run over midnight; SliceThickness is
not used for spacing, since slices may overlap or leave gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_transfer.errors import InputError

__all__ = ["Plane", "order_slices", "volume_affine"]


@dataclass
class Plane:
    """One slice's place: DICOM's ImagePositionPatient, ImageOrientationPatient and PixelSpacing (mm, LPS).

    Args:
        position: of the first pixel's centre, mm in LPS, (3,).
        orientation: direction of a row, then of a column, unit vectors in LPS, (6,).
        pixel_spacing: mm between rows, then between columns, (2,).

    >>> axial = Plane(np.array([0.0, 0.0, 12.5]), np.array([1.0, 0, 0, 0, 1.0, 0]), np.array([0.8, 0.7]))
    >>> axial.normal.tolist()  # to the head
    [0.0, 0.0, 1.0]
    """

    position: np.ndarray
    orientation: np.ndarray
    pixel_spacing: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slice: row direction x column direction."""
        return np.cross(self.orientation[:3], self.orientation[3:])


def order_slices(planes: Sequence[Plane], names: Sequence[str], folder: Path) -> tuple[list[int], float | None]:
    """The order of the slices along their normal, and their distance in mm (``None`` for a single slice).

    Args:
        planes: one per slice, in any order.
        names: of the files, for the error.
        folder: named in the error.

    Raises:
        InputError: directions are not at right angles or differ, two slices lie at one place, several time points or
            echoes are mixed, slices are missing or unevenly spaced, or they are shifted sideways (gantry tilt).

    Three files in the order of their names, which is not that of the slices:

    >>> axial = np.array([1.0, 0, 0, 0, 1.0, 0])
    >>> planes = [Plane(np.array([0.0, 0.0, z]), axial, np.array([0.8, 0.8])) for z in (5.0, 0.0, 2.5)]
    >>> order_slices(planes, ["a", "b", "c"], Path("series"))
    ([1, 2, 0], 2.5)
    """
    first = planes[0]
    row, column = first.orientation[:3], first.orientation[3:]
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if not np.all(np.isfinite(lengths)) or np.any(abs(lengths - 1) > 1e-2) or abs(row @ column) > 1e-2:
        raise InputError(
            "ImageOrientationPatient is not two unit vectors at a right angle",
            path=folder,
            hint="export the series again from its source",
        )
    if any(np.abs(p.orientation - first.orientation).max() > 1e-3 for p in planes):
        raise InputError(
            "the slices have different orientations (a scout or localiser among them?)",
            path=folder,
            hint="separate them; they are not one image",
        )
    if any(not np.allclose(p.pixel_spacing, first.pixel_spacing, rtol=1e-3, atol=0) for p in planes):
        raise InputError(
            "PixelSpacing changes from slice to slice", path=folder, hint="separate the series; it is not one image"
        )
    positions = np.array([p.position for p in planes])
    heights = positions @ first.normal
    order = np.argsort(heights, kind="stable").tolist()
    if len(planes) == 1:
        return order, None
    gaps = np.diff(heights[order])
    _check_duplicates(gaps, order, names, folder)
    spacing = float(np.median(gaps))
    tolerance = max(0.02 * spacing, 0.02)
    uneven = np.flatnonzero(np.abs(gaps - spacing) > tolerance)
    if uneven.size:
        between = int(uneven[np.argmax(gaps[uneven])])
        pair = f"{names[order[between]]} and {names[order[between + 1]]}"
        ratio = gaps[uneven] / spacing
        missing = int(np.sum(np.round(ratio) - 1))
        whole = np.all(np.abs(ratio - np.round(ratio)) * spacing <= tolerance * np.round(ratio)) and np.all(ratio > 1.5)
        if whole and missing <= len(planes):
            raise InputError(
                f"{missing} slice{'s are' if missing > 1 else ' is'} missing, e.g. between {pair} "
                f"({gaps[between]:.3g} mm where {spacing:.3g} mm is usual)",
                path=folder,
                hint="fetch the series again",
            )
        raise InputError(
            f"uneven slice spacing ({gaps.min():.3g} to {gaps.max():.3g} mm), e.g. between {pair}",
            path=folder,
            hint="fetch the series again, or resample it with a tool that knows the gaps",
        )
    # A constant shift per slice is gantry tilt (a sheared volume); a changing one is a moved table or mixed data.
    sideways = positions[order] - positions[order[0]] - np.outer(heights[order] - heights[order[0]], first.normal)
    shift = float(np.linalg.norm(sideways, axis=1).max())
    if shift > max(0.5 * float(np.min(first.pixel_spacing)), 1e-3 * float(heights[order[-1]] - heights[order[0]])):
        raise InputError(
            f"the slices are shifted sideways by up to {shift:.3g} mm (gantry tilt), which a plain volume cannot hold",
            path=folder,
            hint="resample it with a tool that corrects gantry tilt",
        )
    return order, float(heights[order[-1]] - heights[order[0]]) / (len(planes) - 1)


def _check_duplicates(gaps: np.ndarray, order: list[int], names: Sequence[str], folder: Path) -> None:
    same = gaps < 1e-3
    if not same.any():
        return
    places = int((~same).sum()) + 1
    at = int(np.argmax(same))
    if len(order) % places == 0 and len(order) // places > 1 and places > 1:
        starts = np.flatnonzero(np.concatenate([[True], ~same]))
        counts = np.diff(np.concatenate([starts, [len(order)]]))
        if np.all(counts == counts[0]):
            raise InputError(
                f"{counts[0]} images at each of {places} places: several time points, echoes or a copy of every slice",
                path=folder,
                hint="put each time point or echo into a folder of its own",
            )
    raise InputError(
        f"two slices at the same place: {names[order[at]]} and {names[order[at + 1]]}",
        path=folder,
        hint="remove the one that does not belong",
    )


def volume_affine(first: Plane, slice_spacing: float) -> np.ndarray:
    """4 x 4 affine from voxel index (column, row, slice) to mm in RAS; ``first`` is the first slice in order.

    Args:
        first: the first slice in order.
        slice_spacing: mm between slices.

    DICOM counts to the patient's left and back, RAS to the right and the front:

    >>> first = Plane(np.array([10.0, 20.0, -5.0]), np.array([1.0, 0, 0, 0, 1.0, 0]), np.array([0.8, 0.5]))
    >>> volume_affine(first, 2.5).tolist()[0]  # each column is 0.5 mm further to the left
    [-0.5, 0.0, 0.0, -10.0]
    """
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * first.pixel_spacing[1]
    affine[:3, 1] = first.orientation[3:] * first.pixel_spacing[0]
    affine[:3, 2] = first.normal * slice_spacing
    affine[:3, 3] = first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
