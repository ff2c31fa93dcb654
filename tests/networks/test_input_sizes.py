"""Sizes that networks take, beside what the same networks do with real images of them."""

from __future__ import annotations

import contextlib

import pytest
import torch
from monai.networks.nets import DenseNet121, SegResNet, UNet

from monai_transfer.networks.input_sizes import InputSizes, input_sizes

UNET = {"spatial_dims": 2, "in_channels": 2, "out_channels": 3}


@pytest.mark.parametrize(("strides", "factor"), [((1, 1), 1), ((2, 1), 2), ((2, 2), 4), ((2, 2, 2), 8)])
def test_a_unet_takes_multiples_of_its_strides(strides, factor):
    network = UNet(**UNET, channels=[4] * (len(strides) + 1), strides=strides)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert input_sizes(network, 2, 2) == InputSizes(factor, True)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network(torch.zeros(1, 2, 3 * factor * 4, 20 * factor)).shape[2:] == (12 * factor, 20 * factor)
    if factor > 1:
        odd = torch.zeros(1, 2, 12 * factor + 1, 20 * factor)
        with contextlib.suppress(RuntimeError):
            assert network(odd).shape[2:] != odd.shape[2:], "with one halving it answers one voxel more"


def test_an_answer_for_the_whole_image():
    assert input_sizes(DenseNet121(2, 1, 4, init_features=8, growth_rate=4, block_config=(1, 1)), 1, 2) == InputSizes(
        1, False
    )


def test_in_three_dimensions():
    network = SegResNet(3, 8, 1, 2, blocks_down=(1, 1, 1), blocks_up=(1, 1))
    assert input_sizes(network, 1, 3) == InputSizes(4, True)


def test_one_that_looks_at_values_is_left():
    class Looks(torch.nn.Module):
        def forward(self, image):
            return image if float(image.sum()) > 0 else -image

    assert input_sizes(Looks(), 1, 2) is None
