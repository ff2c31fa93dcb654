"""Sides in the names that sets really use."""

from __future__ import annotations

import pytest

from monai_transfer.data.augmentation.mirroring import has_sides, mirror_axes


@pytest.mark.parametrize(
    "name",
    ["left kidney", "kidney_right", "Left-Hippocampus", "lung_left", "ctx-lh-insula", "AtriumLeft"],
)
def test_sides(name):
    assert has_sides(["background", name])


@pytest.mark.parametrize(
    "name", ["anterior", "tumour", "upright", "leftover", "bright lesion", "liver", "label 1", "LV", "R humerus"]
)
def test_no_sides(name):
    assert not has_sides(["background", name])


def test_abbreviations_count_beside_their_partner():
    assert has_sides(["background", "L humerus", "R humerus"]) and has_sides(["background", "LV", "RV"])


def test_axes():
    assert mirror_axes(3, ["background", "left ventricle"]) == []
    assert mirror_axes(3, [], oriented=False) == []
    assert mirror_axes(2, ["normal", "pneumonia"]) == [0]
    assert mirror_axes(3, ["left"], texture=True) == [0, 1, 2]
