"""The steps by themselves: against SciPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy import ndimage

from monai_transfer.nnunet.steps import (
    EvenTilesInferer,
    NormalizeChannelsd,
    RegionsToLabelsd,
    ResizeToSpacingd,
    resize_image,
    resize_labels,
    thick_axis,
)


def test_thick_axes():
    assert thick_axis([1, 1, 3.1], [1, 1, 1]) == 2
    assert thick_axis([1, 1, 1], [4, 1, 1]) == 0
    assert thick_axis([1, 1, 3], [1, 1, 1]) is None
    assert thick_axis([0.2, 1, 1], [1, 1, 1]) is None  # two axes are the thickest
    assert thick_axis([1, 1, 3.1], [1, 1, 1], separate=False) is None


def test_resampling_is_a_spline_over_the_same_extent():
    values = np.random.default_rng(0).standard_normal((1, 6, 7, 5))
    theirs = ndimage.zoom(values[0], (1.5, 1, 2), order=3, mode="nearest", grid_mode=True)
    ours = resize_image(values, (9, 7, 10), 3)
    np.testing.assert_allclose(ours[0], np.clip(theirs, values.min(), values.max()))
    # across thick slices the nearest one, in the plane a spline in each slice
    apart = resize_image(values, (9, 7, 10), 3, 0, axis=2)
    for index in range(10):
        one = values[0, :, :, index // 2]
        flat = np.clip(ndimage.zoom(one, (1.5, 1), order=3, mode="nearest", grid_mode=True), one.min(), one.max())
        np.testing.assert_allclose(apart[0, :, :, index], flat)
    assert resize_image(values, (6, 7, 5), 3) is values


def test_labels_keep_their_values():
    label = np.zeros((1, 8, 8), np.uint8)
    label[0, 2:6, 2:6], label[0, 3:5, 3:5] = 1, 7
    large = resize_labels(label, (16, 16))
    assert set(np.unique(large)) == {0, 1, 7}
    np.testing.assert_array_equal(large[:, 1::2, 1::2], label)


def test_there_and_back():
    affine = np.diag([-0.8, 0.7, 2.0, 1.0])
    affine[:3, 3] = (5, -3, 2)
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((1, 24, 22, 12)), (0, 3, 3, 2))
    data = {"image": MetaTensor(torch.from_numpy(smooth), affine=torch.as_tensor(affine))}
    change = Compose([ResizeToSpacingd("image", [1.0, 1.0, 1.0])])
    there = change(data)["image"]
    assert there.shape == (1, 19, 15, 24)
    # the corner of the first voxel lies where it lay
    corner = torch.tensor([-0.5, -0.5, -0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(there.affine.double() @ corner, torch.as_tensor(affine) @ corner)
    back = change.inverse({"image": there})["image"]
    assert back.shape == (1, 24, 22, 12)
    torch.testing.assert_close(back.affine.double(), torch.as_tensor(affine))
    assert np.abs(back.numpy() - smooth).max() < 0.1 * np.abs(smooth).max()


def test_normalisation_by_hand():
    image = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [0.0, 2.0, 4.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]).repeat(4, 1, 1)
    schemes = [
        {"scheme": "CTNormalization", "low": 1.0, "high": 3.0, "mean": 2.0, "std": 0.5},
        {"scheme": "ZScoreNormalization", "masked": True},
        {"scheme": "RescaleTo01Normalization"},
        {"scheme": "NoNormalization"},
    ]
    done = NormalizeChannelsd("image", schemes)({"image": image})["image"]
    assert done[0, 1].tolist() == [-2, 0, 2, -2]
    assert done[1, 1].tolist() == [0, -1, 1, 0]
    assert done[2, 1].tolist() == [0, 0.5, 1, 0]
    assert torch.equal(done[3], image[3])
    with pytest.raises(ValueError, match="4 channels, the model was trained on 1"):
        NormalizeChannelsd("image", schemes[:1])({"image": image})
    with pytest.raises(ValueError, match="colours from 0 to 255"):
        NormalizeChannelsd("image", [{"scheme": "RGBTo01Normalization"}])({"image": image[:1] - 1})


def test_tiles_stand_at_even_distances():
    inferer = EvenTilesInferer([64, 4])
    assert inferer._starts(110, 64) == [0, 23, 46]  # the example in nnU-Net's own comment
    assert inferer._starts(64, 64) == [0]
    assert inferer._starts(5, 4) == [0, 1]


def test_a_network_that_changes_nothing_is_seen_through_tiles():
    image = torch.randn(2, 1, 21, 13, 9)
    calls = []

    def network(x):
        calls.append(x.shape)
        return x

    for axes in ((), (0, 2)):
        out = EvenTilesInferer([8, 16, 8], mirror_axes=axes)(image, network)
        torch.testing.assert_close(out, image, rtol=1e-4, atol=1e-5)
    assert {tuple(shape[1:]) for shape in calls} == {(1, 8, 16, 8)}
    slices = EvenTilesInferer([16, 16], slice_axis=2)(image, network)
    torch.testing.assert_close(slices, image, rtol=1e-4, atol=1e-5)


def test_later_regions_stand_over_earlier_ones():
    scores = torch.tensor([[2.0, 1.0, -1.0, 0.0], [-1.0, 3.0, -2.0, 0.0]])
    assert RegionsToLabelsd("pred", [4, 9])({"pred": scores})["pred"].tolist() == [[4, 9, 0, 0]]
