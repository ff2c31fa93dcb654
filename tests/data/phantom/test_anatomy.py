"""The procedural head: deterministic, varied, and put together like a head."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from monai_transfer.data.phantom.anatomy import AIR, FAT, GREY, LESION, TISSUES, VENTRICLE, WHITE, Anatomy

STEP = 3.0
AXES = [(np.arange(n) - (n - 1) / 2) * STEP for n in (60, 68, 56)]


@pytest.fixture(scope="module")
def heads() -> list[np.ndarray]:
    return [Anatomy([7, patient]).tissues(*AXES) for patient in range(12)]


def test_same_seed_same_head_other_seed_other_head(heads):
    again = Anatomy([7, 0]).tissues(*AXES)
    assert np.array_equal(heads[0], again)
    assert not np.array_equal(heads[0], heads[1])


def test_every_tissue_occurs_and_the_head_lies_inside_the_field_of_view(heads):
    assert set(np.unique(np.stack(heads))) == set(range(len(TISSUES)))
    for head in heads:
        faces = [head.take(index, axis) for axis in range(3) for index in (0, -1)]
        assert not any(face.any() for face in faces)


def test_layers_are_nested(heads):
    """From outside in: the scalp's fat encloses the brain, and no brain touches air."""
    for head in heads[:4]:
        brain = np.isin(head, [GREY, WHITE, VENTRICLE, LESION])
        outside, _ = ndimage.label(head != FAT)  # air, and what the fat encloses, are not connected
        assert outside[0, 0, 0] not in np.unique(outside[brain])
        assert not np.any(ndimage.binary_dilation(head == AIR) & brain)


def test_volumes_are_those_of_a_small_adult_head_and_vary(heads):
    millilitres = STEP**3 / 1000
    brain = np.array([np.isin(head, [GREY, WHITE, LESION]).sum() * millilitres for head in heads])
    ventricles = np.array([(head == VENTRICLE).sum() * millilitres for head in heads])
    assert np.all((brain > 500) & (brain < 1300))
    assert np.all((ventricles > 5) & (ventricles < 70))
    assert ventricles.std() / ventricles.mean() > 0.15


def test_lesions_vary_in_number_and_some_patients_have_none():
    counts = np.bincount([len(Anatomy([3, patient]).lesions) for patient in range(60)], minlength=5)
    assert np.all(counts > 0)
    assert len(counts) == 5
    assert not np.any(Anatomy([3, 1], lesions=0).tissues(*AXES) == LESION)


def test_lesions_keep_clear_of_the_ventricles(heads):
    for head in heads:
        touching = ndimage.binary_dilation(head == LESION) & (head == VENTRICLE)
        assert not touching.any()


def test_a_head_does_not_depend_on_the_grid():
    """Sampling at every second point gives every second voxel: two scanners see one and the same patient."""
    fine = Anatomy([7, 2]).tissues(*AXES)
    coarse = Anatomy([7, 2]).tissues(*(axis[::2] for axis in AXES))
    assert np.mean(fine[::2, ::2, ::2] != coarse) < 1e-4
