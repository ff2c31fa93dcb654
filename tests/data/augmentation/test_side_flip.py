"""The flip that lets the classes of two sides change places."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_transfer.data.augmentation.side_flip import RandSideFlipd
from monai_transfer.errors import InputError
from monai_transfer.manifest.label_mapping import LabelMapping

CLASSES = ["background", "kidney_left", "kidney_right", "spine"]


def body():
    """Left kidney at high x (RAS: x runs to the right; the array's start is the left side), the spine in the middle."""
    label = torch.zeros(1, 5, 3, 3)
    label[:, 0], label[:, 2], label[:, 4] = 1, 3, 2
    image = torch.arange(5.0).reshape(1, 5, 1, 1).expand(1, 5, 3, 3)
    return {"image": MetaTensor(image.clone()), "label": MetaTensor(label)}


def test_a_mirrored_body_has_its_left_kidney_on_the_left():
    item = RandSideFlipd(["image", "label"], ["label"], CLASSES, prob=1)(body())
    assert item["image"][0, :, 0, 0].tolist() == [4, 3, 2, 1, 0]
    assert item["label"][0, :, 0, 0].tolist() == [1, 0, 3, 0, 2]
    assert isinstance(item["label"], MetaTensor) and item["label"].dtype == torch.float32


def test_channels_and_ignored_voxels():
    mapping = LabelMapping({name: (i,) for i, name in enumerate(CLASSES)}, ignore=(9,))
    numbers = torch.tensor([[[1, -1, 2]]])
    flip = RandSideFlipd("label", ["label"], mapping.outputs, prob=1, spatial_axis=1)
    assert flip({"label": numbers})["label"].tolist() == [[[1, -1, 2]]]
    targets = mapping.targets(numbers)
    assert torch.equal(flip({"label": targets})["label"], mapping.targets(torch.tensor([[[1, -1, 2]]])))


def test_it_is_drawn_and_repeats():
    flip = RandSideFlipd(["image", "label"], ["label"], CLASSES, prob=0.5).set_random_state(0)
    draws = [flip(body())["image"][0, 0, 0, 0].item() for _ in range(200)]
    assert 70 < sum(value == 4 for value in draws) < 130
    again = RandSideFlipd(["image", "label"], ["label"], CLASSES, prob=0.5).set_random_state(0)
    assert draws[:20] == [again(body())["image"][0, 0, 0, 0].item() for _ in range(20)]


def test_a_side_without_a_partner_is_refused():
    with pytest.raises(InputError, match="mirror image of 'left atrium'"):
        RandSideFlipd("label", ["label"], ["background", "left atrium"])
    with pytest.raises(InputError, match="'mask' is not among the keys"):
        RandSideFlipd("label", ["mask"], CLASSES)
