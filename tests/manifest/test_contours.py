"""Contours by the rules of DICOM PS3.3 C.8.8.6: unions, keyholes, exclusive or, holes and islands."""

from __future__ import annotations

import numpy as np
import pytest

from monai_transfer.errors import InputError
from monai_transfer.manifest.contours import Contour, draw_contours

SHAPE = (20, 20, 3)


def square(low, high, kind="CLOSED_PLANAR", k=1, turn=False):
    corners = [(low, low), (high, low), (high, high), (low, high)]
    corners = corners[::-1] if turn else corners
    return Contour(kind, np.array([(x - 0.5, y - 0.5, k) for x, y in corners], dtype=float))


def filled(*squares):
    mask = np.zeros(SHAPE, bool)
    for low, high, value in squares:
        mask[low:high, low:high, 1] = value
    return mask


@pytest.mark.parametrize("turn", [False, True])
def test_a_keyhole_leaves_its_hole_whichever_way_it_turns(turn):
    inner = [(5, 5), (5, 15), (15, 15), (15, 5), (5, 5)]
    inner = inner[::-1] if turn else inner
    points = [(0, 0), (20, 0), (20, 20), (0, 20), (0, 0), *inner, (0, 0)]
    keyhole = Contour("CLOSED_PLANAR", np.array([(x - 0.5, y - 0.5, 1) for x, y in points], dtype=float))
    drawing = draw_contours([keyhole], SHAPE)
    assert np.array_equal(drawing.mask, filled((0, 20, True), (5, 15, False))) and drawing.nested == []


def test_contours_that_overlap_are_a_union():
    drawing = draw_contours([square(2, 10), square(6, 14)], SHAPE)
    assert np.array_equal(drawing.mask, filled((2, 10, True), (6, 14, True)) | filled((6, 14, True)))
    again = draw_contours([square(2, 10), square(2, 10)], SHAPE)  # the same contour twice
    assert np.array_equal(again.mask, filled((2, 10, True))) and again.nested == []


def test_contours_inside_are_holes_and_in_them_islands_or_filled():
    rings = [square(6, 14), square(2, 18), square(8, 12)]
    drawing = draw_contours(rings, SHAPE, pixel_area=0.5)
    assert np.array_equal(drawing.mask, filled((2, 18, True), (6, 14, False), (8, 12, True)))
    assert drawing.nested == [64 * 0.5]
    assert np.array_equal(draw_contours(rings, SHAPE, nested="fill").mask, filled((2, 18, True)))
    with pytest.raises(InputError, match="neither hole nor fill"):
        draw_contours(rings, SHAPE, nested="maybe")


def test_exclusive_or_makes_rings_and_exchanges_overlaps():
    xor = [square(2, 18, "CLOSEDPLANAR_XOR"), square(6, 14, "CLOSEDPLANAR_XOR", turn=True)]
    drawing = draw_contours(xor, SHAPE)
    assert np.array_equal(drawing.mask, filled((2, 18, True), (6, 14, False))) and drawing.nested == []


def test_what_encloses_nothing_is_counted():
    odd = [square(2, 5, "OPEN_PLANAR"), square(2, 5, "POINT"), square(2, 5, ""), square(2, 5, k=9)]
    short = Contour("CLOSED_PLANAR", np.array([[1.0, 1, 1], [2, 2, 1]]))
    drawing = draw_contours([*odd, short], SHAPE)
    assert not drawing.mask.any() and drawing.left_out == {
        "OPEN_PLANAR": 1,
        "POINT": 1,
        "contours without a type": 1,
        "outside the images": 1,
        "closed contours of fewer than three points": 1,
    }
    tilted = Contour("CLOSED_PLANAR", np.array([[1.0, 1, 0], [5, 1, 0], [5, 5, 2]]))
    with pytest.raises(InputError, match="runs across slices"):
        draw_contours([tilted], SHAPE)
