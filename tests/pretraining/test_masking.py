from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, MetaTensor
from monai.data.utils import set_rnd

from monai_transfer.pretraining.masking import RandMaskBlocksd


@pytest.mark.parametrize("shape", [(1, 16, 24), (2, 16, 16, 8)])
@pytest.mark.parametrize("ratio", [0.25, 0.6])
def test_hides_the_asked_share_of_blocks_and_keeps_the_truth(shape, ratio):
    image = torch.rand(shape) + 1
    kept = image.clone()
    out = RandMaskBlocksd(block=4, ratio=ratio).set_random_state(0)({"image": image})
    mask = out["label"][-1:]
    assert torch.equal(image, kept), "the input is left alone"
    assert out["label"].shape == (shape[0] + 1, *shape[1:])
    assert torch.equal(out["label"][:-1], image)
    assert torch.equal(out["image"], torch.where(mask.bool(), torch.zeros(()), image))
    blocks = mask[0]
    for axis in range(blocks.ndim):
        blocks = blocks.unfold(axis, 4, 4)
    blocks = blocks.flatten(blocks.ndim // 2)
    assert set(blocks.float().mean(-1).unique().tolist()) == {0.0, 1.0}, "whole blocks"
    total = np.prod([n // 4 for n in shape[1:]])
    assert blocks[..., 0].sum() == round(ratio * total)


def test_blocks_per_axis_smaller_last_blocks_and_fill():
    out = RandMaskBlocksd(block=(4, 100), ratio=0.5, fill=-1.0).set_random_state(1)({"image": torch.ones(1, 10, 6)})
    rows = out["label"][1].unique(dim=1)
    assert rows.shape == (10, 1), "a block longer than the axis covers it"
    assert rows[8, 0] == rows[9, 0] and rows[0, 0] == rows[3, 0]
    assert set(out["image"].unique().tolist()) == {-1.0, 1.0}


def test_even_a_small_ratio_hides_and_a_large_one_shows():
    for ratio in (0.01, 0.99):
        mask = RandMaskBlocksd(block=4, ratio=ratio)({"image": torch.ones(1, 8, 8)})["label"][1]
        assert 0 < mask.mean() < 1


def test_drawn_anew_by_the_data_sets_seed_and_fixed_for_validation():
    items = [{"image": torch.ones(1, 16, 16)}]
    data = CacheDataset(items, RandMaskBlocksd(block=4), progress=False)
    set_rnd(data, 3)
    first, second = data[0]["label"], data[0]["label"]
    assert not torch.equal(first, second)
    set_rnd(data, 3)
    assert torch.equal(data[0]["label"], first)
    fixed = RandMaskBlocksd(block=4, seed=5)
    assert torch.equal(fixed(items[0])["label"], fixed(items[0])["label"])


def test_geometry_stays_with_the_image_and_no_meta_goes_into_the_truth():
    image = MetaTensor(torch.rand(1, 8, 8, 8), affine=torch.diag(torch.tensor([2.0, 3, 4, 1])))
    out = RandMaskBlocksd(block=4)({"image": image})
    assert torch.equal(out["image"].affine, image.affine)
    assert type(out["label"]) is torch.Tensor


@pytest.mark.parametrize("wrong", [{"ratio": 0}, {"ratio": 1.0}, {"block": 0}, {"keys": ["a", "b"]}])
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match=r"ratio|block|key"):
        RandMaskBlocksd(**wrong)


def test_a_block_as_large_as_the_image():
    with pytest.raises(ValueError, match="cannot hide a part"):
        RandMaskBlocksd(block=16)({"image": torch.ones(1, 8, 8)})
