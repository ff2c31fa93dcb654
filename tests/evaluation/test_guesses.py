"""What guessing is worth, and what the working grid allows."""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing

from monai_transfer.evaluation.guesses import SIZES, Guesses, blob_dice


def test_blob_dice_is_that_of_the_ellipsoid_itself():
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (31, 41, 21)], indexing="ij"))
    mask = (grid[0] + 0.1) ** 2 + grid[1] ** 2 + grid[2] ** 2 < 0.3
    found = blob_dice(mask)
    for n, size in enumerate(SIZES):
        ellipsoid = (grid**2).sum(0) < size**2
        assert abs(found[n] - 2 * (ellipsoid & mask).sum() / (ellipsoid.sum() + mask.sum())) < 0.01
    assert np.isclose(found[-1], 2 * mask.sum() / (mask.sum() + mask.size))
    assert np.isnan(blob_dice(np.zeros((4, 4), bool))).all()


def test_a_coarse_grid_loses_the_small_structure_alone():
    truth = torch.zeros(1, 48, 48, 48)
    truth[:, 8:36, 8:36, 8:36] = 2
    truth[:, 40:42, 40:42, 40:42] = 1
    truth = MetaTensor(truth, affine=torch.eye(4, dtype=torch.float64))
    coarse = Guesses({0: "background", 1: "spot", 2: "organ"})
    coarse.add(truth, Spacing((4, 4, 4))(truth))
    grid = coarse.to_dict()["working_grid"]
    assert grid["spot"] < 0.6 < 0.8 < grid["organ"]
    own = Guesses({0: "background", 1: "spot", 2: "organ"})
    own.add(truth, truth)
    assert "working_grid" not in own.to_dict(), "it works on the image's own grid"
