import math

import pytest
import torch
from torch import nn

from monai_transfer.methods.advent import Advent, entropy_loss, patch_discriminator, self_information
from monai_transfer.methods.base import Fields


def test_self_information_voxel_by_voxel():
    logits = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    information = self_information(logits)
    for i in range(2):
        for j in range(2):
            exponents = [math.exp(v) for v in logits[0, :, i, j].tolist()]
            for c in range(3):
                p = exponents[c] / sum(exponents)
                assert information[0, c, i, j].item() == pytest.approx(-p * math.log2(p) / math.log2(3))


@pytest.mark.parametrize("shape", [(2, 4, 5, 5), (2, 1, 3, 3, 3)])
def test_entropy_loss_is_normalised(shape):
    assert entropy_loss(torch.zeros(shape), None).item() == pytest.approx(1)
    assert entropy_loss(torch.zeros(shape), 0.5).item() == pytest.approx(1)
    assert entropy_loss(1e4 * torch.randn(shape), None).item() == pytest.approx(0, abs=1e-3)


def test_foreground_weighting_written_out():
    logits = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    p = logits.softmax(1)
    entropy = -(p * p.log()).sum(1) / math.log(3)
    background = p[:, 0]
    expected = 0.7 * (entropy * background).sum() / background.sum()
    expected += 0.3 * (entropy * (1 - background)).sum() / (1 - background).sum()
    torch.testing.assert_close(entropy_loss(logits, 0.3), expected)


def test_a_small_uncertain_structure_counts_though_background_dominates():
    logits = torch.zeros(1, 2, 16, 16, 16)
    logits[:, 0], logits[:, 1] = 8.0, -8.0  # sure background everywhere
    logits[0, :, 7:9, 7:9, 7:9] = torch.tensor([0.0, 0.1]).view(2, 1, 1, 1)
    assert entropy_loss(logits, None) < 0.01
    assert entropy_loss(logits, 0.5) > 0.3


@pytest.mark.parametrize("size", [(8, 8), (64, 48), (8, 8, 8), (32, 32, 3), (2, 2), (5, 7, 9)])
def test_discriminator_fits_any_patch(size):
    network = patch_discriminator(2, size, width=4)
    assert network(torch.randn(1, 2, *size)).shape[:2] == (1, 1)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())


def make_fields(dims=2, classes=3, **options):
    shape = (2, classes, *([8] * dims))
    return Fields(source_logits=torch.randn(shape, **options), target_logits=torch.randn(shape, **options))


@pytest.mark.parametrize("space", ["self_information", "probabilities"])
def test_the_network_is_not_the_critic(space):
    fields = make_fields(requires_grad=True)
    method = Advent(space=space, width=4)
    method.setup(nn.Identity(), fields)
    method(fields, 0.0).backward()
    assert fields.target_logits.grad.abs().sum() > 0
    assert fields.source_logits.grad is None
    assert all(p.grad is None for p in method.parameters())
    fields.target_logits.grad = None
    method.critic_step(fields).backward()
    assert fields.target_logits.grad is None
    assert all(p.grad is not None for p in method.parameters())


def test_the_generator_moves_target_maps_towards_source():
    fields = make_fields()
    method = Advent(width=8, weight=1.0, lr=1e-2)
    method.setup(nn.Identity(), fields)
    optimizer = method.make_optimizer()
    assert optimizer.defaults["betas"] == (0.9, 0.99)
    fields["source_logits"] = 5 * fields.source_logits
    for _ in range(30):
        optimizer.zero_grad()
        method.critic_step(fields).backward()
        optimizer.step()
    assert method.log()["discriminator_accuracy"] > 0.9
    logits = fields.target_logits.clone().requires_grad_()
    before = method(Fields(target_logits=logits), 0.0)
    (gradient,) = torch.autograd.grad(before, logits)
    after = method(Fields(target_logits=logits.detach() - 0.5 * gradient / gradient.abs().max()), 0.0)
    assert after < before


def test_state_round_trip_and_bad_space():
    fields = make_fields(dims=3, classes=1)
    method, other = Advent(width=4), Advent(width=4)
    method.setup(nn.Identity(), fields)
    other.setup(nn.Identity(), fields)
    assert method(fields, 0) != other(fields, 0)
    other.load_state_dict(method.state_dict())
    assert method(fields, 0) == other(fields, 0)
    with pytest.raises(ValueError, match="space"):
        Advent(space="outputs")


def dice(network, images, masks):
    with torch.no_grad():
        predicted = network(images).argmax(1)
    return (2 * (predicted * masks).sum() / (predicted.sum() + masks.sum()).clamp_min(1)).item()


def scans(n, contrast, seed):
    """Discs of random place on a noisy ground; the target's discs are fainter."""
    g = torch.Generator().manual_seed(seed)
    grid = torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij"))
    centre = 4 + 8 * torch.rand(n, 2, 1, 1, generator=g)
    masks = ((grid - centre).square().sum(1) < 9).long()
    return (contrast * masks + 0.15 * torch.randn(n, 16, 16, generator=g))[:, None], masks


def run(method, seed):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))
    (xs, ys), (xt, _) = scans(32, 1.0, 1), scans(32, 0.4, 2)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    own = None
    for step in range(200):
        zs = network(xs)
        loss = nn.functional.cross_entropy(zs, ys)
        if step >= 60 and method is not None:
            fields = Fields(source_logits=zs, target_logits=network(xt))
            if step == 60:
                method.setup(network, fields)
                own = method.make_optimizer()
            if own is not None:
                own.zero_grad()
                method.critic_step(fields).backward()
                own.step()
            loss = loss + method(fields, step / 200)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return dice(network, *scans(32, 0.4, 3))


@pytest.mark.parametrize("adversarial", [False, True])
def test_fainter_structures_are_found_again(adversarial):
    for seed in (0, 2):
        method = Advent(adversarial=adversarial, weight=0.2, width=8, lr=1e-3)
        assert run(method, seed) > run(None, seed) + 0.3
