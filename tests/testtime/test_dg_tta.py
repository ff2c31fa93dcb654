"""DG-TTA: the views, the loss, one scan at a time, and what it refuses."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from monai.engines import SupervisedEvaluator
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet, resnet10
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.testtime.dg_tta import DgTta, _inverse, _padded, consistency_between, random_affines, warp


@pytest.mark.parametrize("dims", [2, 3])
def test_a_view_comes_back_to_the_same_frame(dims):
    generator = torch.Generator().manual_seed(0)
    affine = random_affines(2, dims, 0.05, generator)
    axis = torch.linspace(0, 3, 24)
    wave = torch.stack(torch.meshgrid(*[axis] * dims, indexing="ij")).sin().sum(0)[None, None].repeat(2, 1, *[1] * dims)
    there = warp(wave, affine)
    back = warp(there, _inverse(affine))
    inside = warp(warp(torch.ones_like(wave), affine), _inverse(affine)) > 0.99
    assert (there - wave)[inside].abs().mean() > 0.03, "the view is another one"
    assert (back - wave)[inside].abs().mean() < 0.015
    assert inside.float().mean() > 0.6


def test_the_loss_is_one_minus_soft_dice_of_the_foreground():
    p, q = (torch.rand(2, 3, 4, 4, dtype=torch.float64).softmax(1) for _ in range(2))
    inside = torch.ones(2, 1, 4, 4, dtype=torch.float64)
    inside[..., 0] = 0
    dice = [
        2 * (p[b, c, :, 1:] * q[b, c, :, 1:]).sum() / (p[b, c, :, 1:].square() + q[b, c, :, 1:].square()).sum()
        for b in range(2)
        for c in (1, 2)
    ]
    torch.testing.assert_close(consistency_between(p, q, inside), 1 - torch.stack(dice).mean())


def segmenter(dims=2) -> nn.Module:
    """Learnt to find bright discs of one contrast."""
    torch.manual_seed(0)
    network = UNet(dims, 1, 2, (8, 16), (2,), norm="instance")
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        image, label = discs(4)
        loss = nn.functional.cross_entropy(network(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def discs(n: int, contrast: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    centre = torch.randint(10, 22, (n, 2, 1, 1))
    label = ((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2 < 36).long()
    image = contrast * label[:, None] + 0.3 * torch.randn(n, 1, 32, 32)
    return image, label


def agreement(network: nn.Module, image: torch.Tensor) -> float:
    """How alike two other views are segmented: what the adaptation asks for, on draws that it has not seen."""
    generator = torch.Generator().manual_seed(99)
    losses = []
    for _ in range(8):
        maps = []
        for _view in range(2):
            affine = random_affines(len(image), 2, 0.05, generator)
            maps.append(warp(network(warp(image, affine)).softmax(1), _inverse(affine)))
        losses.append(consistency_between(*maps, torch.ones_like(image)).item())
    return sum(losses) / len(losses)


def test_views_agree_better_afterwards_and_the_network_given_is_left_alone(caplog):
    network = segmenter()
    kept = copy.deepcopy(network.state_dict())
    image, _ = discs(1, contrast=0.3)
    wrapped = DgTta(lr=1e-3, steps=6, patches=2, members=1).wrap(network)
    with caplog.at_level(logging.INFO):
        wrapped.adapt(image)
    (member,) = wrapped._members
    with torch.no_grad():
        assert agreement(member, image) < 0.9 * agreement(network, image)
    assert all(torch.equal(kept[name], value) for name, value in network.state_dict().items())
    assert "adapted to a scan in" in caplog.text
    assert "24 forward and 12 backward passes" in caplog.text


def test_each_scan_starts_anew_and_windows_share_their_scan():
    network = segmenter()
    scans = [{"image": discs(1, contrast)[0]} for contrast in (0.6, 0.8, 0.6)]
    scans[2] = scans[0]
    wrapped = DgTta(lr=1e-3, steps=2, patches=1, members=2, patch=16).wrap(network)
    found, calls = [], []
    original = wrapped.adapt
    wrapped.adapt = lambda image: (calls.append(image.shape), original(image))
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=scans, network=wrapped, decollate=False,
        inferer=SlidingWindowInferer((16, 16), 4, overlap=0),
    )  # fmt: skip
    wrapped.attach(evaluator)
    evaluator.add_event_handler("ITERATION_COMPLETED", lambda e: found.append(e.state.output["pred"].clone()))
    evaluator.run()
    assert calls == [(1, 1, 32, 32)] * 3, "once for each scan, not for each window"
    assert torch.equal(found[0], found[2]), "nothing is kept from scan to scan"
    assert not torch.equal(found[0], found[1])
    assert found[0].exp().sum(1).allclose(torch.ones(1, 32, 32))


def test_a_scan_smaller_than_a_patch_is_padded():
    """A U-Net of three halvings answers 31 voxels with 32: crops of that size made two views that do not fit."""
    torch.manual_seed(0)
    network = UNet(3, 1, 2, channels=(4, 8, 8, 8), strides=(2, 2, 2))
    image = torch.randn(1, 1, 31, 40, 27)
    options = DgTta(lr=1e-3, steps=1, patches=1, members=1)
    wrapped = options.wrap(network)
    wrapped.adapt(image)
    assert len(wrapped._members) == 1
    padded, scan = _padded(image, (32, 32, 32))
    assert padded.shape == scan.shape == (1, 1, 32, 40, 32) and scan.sum() == image.numel()
    assert torch.equal(padded[scan > 0], image.flatten())
    asked = DgTta(lr=1e-3, steps=1, patches=1, members=1, patch=32).wrap(network)
    asked.adapt(image)
    weights = [m.state_dict() for m in (wrapped._members[0], asked._members[0])]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0]), "the patch that was named"


def test_without_foreground_it_predicts_as_it_is(caplog):
    network = segmenter()
    with torch.no_grad():
        next(p for n, p in network.named_parameters() if n.endswith("bias") and p.shape == (2,)).copy_(
            torch.tensor([50.0, -50.0])
        )
    image, _ = discs(1)
    output = DgTta(steps=1, patches=1, members=1).wrap(network)(image)
    torch.testing.assert_close(output, network(image).log_softmax(1).clamp_min(-27.6310), rtol=1e-4, atol=1e-4)
    assert "no foreground in a scan" in caplog.text


def test_what_it_cannot_do_is_refused():
    with pytest.raises(InputError, match="adapts segmenters, and this network gives"):
        classifier = resnet10(spatial_dims=2, n_input_channels=1, num_classes=2, widen_factor=0.0625)
        DgTta().wrap(classifier)(torch.randn(1, 1, 32, 32))
    with pytest.raises(InputError, match="positive numbers"):
        DgTta(steps=0)
    with pytest.raises(InputError, match="one number per axis"):
        DgTta(patch=[8, 8, 8]).wrap(segmenter())(torch.randn(1, 1, 32, 32))
