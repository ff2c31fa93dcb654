"""Contours of one structure (an RTSTRUCT's ROI) as a mask, by the rules of DICOM PS3.3 C.8.8.6.

- ``CLOSED_PLANAR`` contours of one slice are a union; a keyhole (one contour that runs inwards along a channel, around
  a hole and back) leaves its hole.
- ``CLOSEDPLANAR_XOR`` contours of one slice are combined by exclusive or, which makes rings.
- Open contours and points enclose nothing: they are left out and named.

A closed contour wholly inside another one adds nothing to a union, so whoever drew it most often meant a hole. It is
taken for one unless ``nested="fill"``, and reported with its area either way.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.path import Path as Polygon

from monai_transfer.errors import InputError

__all__ = ["Contour", "Drawing", "draw_contours"]

NESTED = ("hole", "fill")
_CLOSED, _XOR = "CLOSED_PLANAR", "CLOSEDPLANAR_XOR"


@dataclass(frozen=True)
class Contour:
    """One contour: its geometric type, and its points as fractional voxel indices (N, 3): column, row, slice."""

    kind: str
    points: np.ndarray


@dataclass
class Drawing:
    """The mask of a structure and what is to be said of its contours.

    Attributes:
        mask: bool, (columns, rows, slices).
        left_out: number of contours that are not in it, by reason: a geometric type, or ``outside the images``.
        nested: area in mm2 of every contour wholly inside another.
    """

    mask: np.ndarray
    left_out: Counter[str] = field(default_factory=Counter)
    nested: list[float] = field(default_factory=list)

    def join(self, other: Drawing) -> Drawing:
        """Both together, as one structure."""
        return Drawing(self.mask | other.mask, self.left_out + other.left_out, self.nested + other.nested)


def draw_contours(
    contours: Sequence[Contour], shape: tuple[int, int, int], pixel_area: float = 1.0, nested: str = "hole"
) -> Drawing:
    """The mask of one structure: voxels whose centres lie inside.

    Args:
        contours: of the structure.
        shape: columns, rows and slices of the grid.
        pixel_area: of one pixel of a slice in mm2, for the areas reported.
        nested: ``hole`` or ``fill``, for closed contours wholly inside another.

    Raises:
        InputError: a contour runs across slices, or ``nested`` is neither.

    Example:
        >>> square = lambda a, b: Contour("CLOSED_PLANAR", np.array([[a, a, 0], [b, a, 0], [b, b, 0], [a, b, 0]]))
        >>> ring = [square(0.5, 5.5), square(1.5, 4.5)]
        >>> draw_contours(ring, (7, 7, 1)).mask.sum(), draw_contours(ring, (7, 7, 1), nested="fill").mask.sum()
        (np.int64(16), np.int64(25))
    """
    if nested not in NESTED:
        raise InputError(f"--nested {nested!r} is neither hole nor fill", hint="write --nested hole or --nested fill")
    drawing = Drawing(np.zeros(shape, dtype=bool))
    # contours between two slices go to the nearest; only those of one plane make holes in one another
    by_slice: dict[tuple[int, int], list[Contour]] = defaultdict(list)
    for contour in contours:
        if contour.kind not in (_CLOSED, _XOR):
            drawing.left_out[contour.kind or "contours without a type"] += 1
        elif len(contour.points) < 3:
            drawing.left_out["closed contours of fewer than three points"] += 1
        else:
            if np.ptp(contour.points[:, 2]) > 0.5:
                raise InputError("a contour runs across slices", hint="export it on the image's own slices")
            height = float(contour.points[:, 2].mean())
            k = round(height)
            if 0 <= k < shape[2]:
                by_slice[k, round(10 * height)].append(contour)
            else:
                drawing.left_out["outside the images"] += 1
    for (k, _), group in by_slice.items():
        plain = [contour.points[:, :2] for contour in group if contour.kind == _CLOSED]
        plane = _union(plain, shape, pixel_area, nested, drawing)
        for contour in group:
            if contour.kind == _XOR:
                plane ^= _inside(contour.points[:, :2], shape)
        drawing.mask[:, :, k] |= plane
    return drawing


def _union(
    polygons: list[np.ndarray], shape: tuple[int, int, int], pixel_area: float, nested: str, drawing: Drawing
) -> np.ndarray:
    """The closed contours of one slice, the largest first, each nested one a hole (in a hole: an island) or filled."""
    order = sorted(polygons, key=_area, reverse=True)
    result = np.zeros(shape[:2], dtype=bool)
    for i, polygon in enumerate(order):
        depth = sum(_contains(outer, polygon) for outer in order[:i])
        if depth % 2:
            drawing.nested.append(_area(polygon) * pixel_area)
        inside = _inside(polygon, shape)
        result = result & ~inside if depth % 2 and nested == "hole" else result | inside
    return result


def _contains(outer: np.ndarray, inner: np.ndarray) -> bool:
    """Whether ``inner`` lies wholly inside ``outer`` (and is not the same contour once more)."""
    if outer.shape == inner.shape and np.allclose(outer, inner):
        return False
    # between its points a contour may leave the outer one: a point on each edge is looked at, too
    points = np.concatenate([inner, (inner + np.roll(inner, -1, axis=0)) / 2])
    return bool(Polygon(outer).contains_points(points).all())


def _area(polygon: np.ndarray) -> float:
    x, y = polygon[:, 0], polygon[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _inside(polygon: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The pixels whose centres are inside by the even-odd rule, which keeps the hole of a keyhole.

    A pixel on an edge belongs to one side of it alone, and the channel of a keyhole, drawn there and back, to both: its
    ends are taken in one order, so that both ways cross a row at the very same place.
    """
    start, end = polygon, np.roll(polygon, -1, axis=0)
    swap = start[:, 1] > end[:, 1]
    low, high = np.where(swap[:, None], end, start), np.where(swap[:, None], start, end)
    crossings = np.zeros((shape[0] + 1, shape[1]), dtype=np.int64)
    for (x0, y0), (x1, y1) in zip(low, high, strict=True):
        rows = np.arange(max(0, int(np.ceil(y0))), min(shape[1], int(np.ceil(y1))))  # y0 <= row < y1
        if len(rows):
            x = x0 + (rows - y0) / (y1 - y0) * (x1 - x0)
            np.add.at(crossings, (np.clip(np.ceil(x), 0, shape[0]).astype(int), rows), 1)
    # a pixel is inside where an odd number of edges cross its row behind it
    return (np.cumsum(crossings[::-1], axis=0)[::-1][1:] % 2).astype(bool)
