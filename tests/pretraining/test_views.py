from __future__ import annotations

import pytest
import torch
from monai.data import CacheDataset, MetaTensor
from monai.data.utils import set_rnd
from monai.transforms import RandFlipd, RandGaussianNoised, RandSpatialCropd

from monai_transfer.pretraining.views import TwoViewsd


def noisy(dims: int) -> list:
    return [
        RandSpatialCropd("image", [4] * dims, random_size=False),
        RandFlipd("image", 0.5, spatial_axis=0),
        RandGaussianNoised("image", prob=1.0),
    ]


@pytest.mark.parametrize("dims", [2, 3])
def test_two_unlike_views_of_one_shape(dims):
    image = MetaTensor(torch.rand(1, *[8] * dims))
    kept = image.clone()
    views = TwoViewsd("image", noisy(dims)).set_random_state(0)({"image": image})["image"]
    assert views.shape == (2, 1, *[4] * dims)
    assert type(views) is torch.Tensor
    assert not torch.equal(views[0], views[1])
    assert torch.equal(image, kept)


def test_the_data_sets_seed_decides_and_the_cache_stops_before():
    data = CacheDataset([{"image": torch.rand(1, 8, 8)}], TwoViewsd("image", noisy(2)), progress=False)
    set_rnd(data, 7)
    first, second = data[0]["image"], data[0]["image"]
    assert not torch.equal(first, second)
    set_rnd(data, 7)
    assert torch.equal(data[0]["image"], first)


def test_fixed_views_for_validation():
    item = {"image": torch.rand(1, 8, 8)}
    views = TwoViewsd("image", noisy(2), seed=3)
    first = views(item)["image"]
    assert torch.equal(views(item)["image"], first) and not torch.equal(first[0], first[1])


def test_views_of_two_shapes_and_two_keys_are_refused():
    crop = RandSpatialCropd("image", [2, 2], random_size=True)
    views = TwoViewsd("image", crop).set_random_state(0)
    with pytest.raises(ValueError, match="crop them to one size"):
        for _ in range(20):
            views({"image": torch.rand(1, 8, 8)})
    with pytest.raises(ValueError, match="one image key"):
        TwoViewsd(["image", "other"], crop)
