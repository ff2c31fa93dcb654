"""Flips at test: the mean of what a hand-made loop gives, in windows, in a stock evaluator, with sides in the names."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import DenseNet, DynUNet, UNet

from monai_transfer.errors import InputError
from monai_transfer.testtime.flips import FlipInferer, Flips


def net(dims=3):
    return UNet(dims, 1, 3, (4, 8), (2,), norm="batch").eval()


@pytest.mark.parametrize("axes", [[0], [0, 2], [0, 1, 2]])
@torch.no_grad()
def test_it_is_the_mean_over_all_mirror_images(axes):
    network, image = net(), torch.rand(2, 1, 16, 16, 16)
    outs = []
    for chosen in product(*[(False, True)] * len(axes)):
        dims = [axis + 2 for axis, on in zip(axes, chosen, strict=True) if on]
        outs.append(network(image.flip(dims)).flip(dims))
    wrapped = Flips(axes).wrap(network)
    torch.testing.assert_close(wrapped(image), torch.stack(outs).mean(0))
    torch.testing.assert_close(FlipInferer(axes=axes)(image, network), wrapped(image))
    dims = [axes[0] + 2]
    torch.testing.assert_close(wrapped(image.flip(dims)).flip(dims), wrapped(image))  # it commutes with its flips


@torch.no_grad()
def test_in_windows_of_a_stock_evaluator():
    network = net()
    data = DataLoader([{"image": torch.rand(1, 24, 16, 16)}], batch_size=1)
    inner = SlidingWindowInferer((16, 16, 16), overlap=0.5, mode="gaussian")
    outs = {}
    for name, inferer in (("plain", inner), ("flips", FlipInferer(inner, [1])), ("off", FlipInferer(inner, []))):
        evaluator = SupervisedEvaluator(
            device=torch.device("cpu"), val_data_loader=data, network=network, inferer=inferer, decollate=False,
            prepare_batch=lambda b, *_: (b["image"], None),
        )  # fmt: skip
        evaluator.run()
        outs[name] = evaluator.state.output["pred"]
    torch.testing.assert_close(outs["off"], outs["plain"])
    assert not torch.allclose(outs["flips"], outs["plain"])
    image = data.dataset[0]["image"][None]
    by_hand = (inner(image, network) + inner(image.flip(3), network).flip(3)) / 2
    torch.testing.assert_close(outs["flips"], by_hand)


@torch.no_grad()
def test_classes_named_by_side_change_places():
    """A network that finds left by where it lies: mirrored without pairs its classes are averaged away."""

    class Sides(torch.nn.Module):
        def forward(self, x):
            place = torch.linspace(-1, 1, x.shape[2]).view(1, 1, -1, 1).expand_as(x)
            return torch.cat([torch.zeros_like(x), x * place, -x * place], dim=1)

    image = torch.rand(1, 1, 8, 8)
    plain = Sides()(image)
    torch.testing.assert_close(Flips([0], pairs=[[1, 2]]).wrap(Sides())(image), plain)
    assert Flips([0]).wrap(Sides())(image)[:, 1:].abs().max() < 1e-6


@torch.no_grad()
def test_scores_of_whole_images_several_heads_and_autocast():
    dense = DenseNet(2, 1, 2, init_features=4, growth_rate=2, block_config=(1,), bn_size=1).eval()
    image = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(Flips([1]).wrap(dense)(image), (dense(image) + dense(image.flip(3))) / 2)
    heads = DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 8], deep_supervision=True, deep_supr_num=1)
    assert Flips([0]).wrap(heads.train())(image).shape == (3, 2, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Flips([0]).wrap(dense)(image).dtype == torch.float32


def test_refused():
    with pytest.raises(InputError, match="no spatial axes"):
        Flips([3])
    with pytest.raises(InputError, match="2 axes"):
        Flips([2]).wrap(net(2))(torch.rand(1, 1, 8, 8))
