"""The voxel grid of a DICOM series, from every slice's position: what masks are drawn on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom

from monai_transfer.errors import InputError

__all__ = ["Grid"]

_TAGS = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "SOPInstanceUID")


@dataclass
class Grid:
    """Where the voxels of a series lie, in DICOM's patient coordinates (LPS, mm).

    Attributes:
        shape: columns, rows, slices: the order of axes in which MONAI reads a series.
        origin: centre of the first voxel, of shape (3,).
        steps: the vectors to the next column, row and slice, as columns of a 3 x 3 matrix.
        distances: of every slice along the normal, ascending.
        slices: the slice of each image file, by its SOPInstanceUID.

    >>> grid = Grid((64, 64, 3), np.array([-10.0, 5.0, 0.0]), np.diag([0.5, 0.5, 2.0]), np.array([0.0, 2.0, 4.0]))
    >>> grid.voxels(np.array([[-9.0, 5.0, 2.0]])).tolist()  # two columns to the left, one slice up
    [[2.0, 0.0, 1.0]]
    """

    shape: tuple[int, int, int]
    origin: np.ndarray
    steps: np.ndarray
    distances: np.ndarray
    slices: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, files: list[Path]) -> Grid:
        """The grid of a series' files.

        Raises:
            InputError: slices differ in size or direction, lie on one another, or are unevenly spaced.
        """
        headers = [pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS)) for path in files]
        first = headers[0]
        where = files[0].parent
        try:
            orientation = np.array(first.ImageOrientationPatient, dtype=float)
            spacing = np.array(first.PixelSpacing, dtype=float)
            positions = np.array([header.ImagePositionPatient for header in headers], dtype=float)
            sizes = {(int(h.Columns), int(h.Rows)) for h in headers}
            alike = all(
                np.allclose(np.array(h.ImageOrientationPatient, float), orientation, atol=1e-3)
                and np.allclose(np.array(h.PixelSpacing, float), spacing, rtol=1e-3)
                for h in headers
            )
        except AttributeError as error:
            raise InputError(f"a slice has no position ({error})", path=where, hint="export it again") from None
        if len(sizes) > 1 or not alike:
            hint = "keep one series per folder"
            raise InputError("slices differ in size, spacing or direction", path=where, hint=hint)
        across, down = orientation[:3], orientation[3:]
        normal = np.cross(across, down)
        order = np.argsort(positions @ normal)
        distances = (positions @ normal)[order]
        gaps = np.diff(distances)
        if len(gaps) and (gaps.min() < 1e-3 or gaps.max() - gaps.min() > 0.05 * gaps.mean()):
            hint = "copy the whole series again"
            raise InputError("slices are doubled, missing or unevenly spaced", path=where, hint=hint)
        start, end = positions[order[0]], positions[order[-1]]
        step = (end - start) / (len(files) - 1) if len(files) > 1 else normal
        columns, rows = sizes.pop()
        steps = np.column_stack([across * spacing[1], down * spacing[0], step])
        slices = {str(headers[n].get("SOPInstanceUID")): k for k, n in enumerate(order.tolist())}
        return cls((columns, rows, len(files)), start, steps, distances, slices)

    def voxels(self, points: np.ndarray) -> np.ndarray:
        """Patient coordinates (N x 3, mm) as fractional voxel indices (column, row, slice)."""
        return np.linalg.solve(self.steps, (points - self.origin).T).T

    @property
    def affine(self) -> np.ndarray:
        """4 x 4, voxel to RAS mm: in the same place as MONAI reads the series."""
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = self.steps, self.origin
        return np.diag([-1, -1, 1, 1]) @ affine
