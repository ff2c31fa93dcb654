"""Contrast turned round between the sites: what an input-space method and self-training make of it together."""

import pytest
import torch
from torch import nn

from monai_transfer.data.randomisation import RandAppearanced
from monai_transfer.methods.pseudo_label import PseudoLabel


def scans(n, inverted, seed):
    """Squares (class 1) and crosses (class 0) on a noisy ground, bright at the source and dark at the target."""
    g = torch.Generator().manual_seed(seed)
    images, labels = torch.zeros(n, 1, 12, 12), torch.arange(n) % 2
    for image, label, (y, x) in zip(images, labels, torch.randint(0, 6, (n, 2), generator=g), strict=True):
        if label:
            image[0, y : y + 5, x : x + 5] = 1
        else:
            image[0, y + 2, x : x + 5] = image[0, y : y + 5, x + 2] = 1
    images = images + 0.1 * torch.randn(images.shape, generator=g)
    return (1 - images if inverted else images) - 0.5, labels


def network_of(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_randomised_contrast_then_self_training(adapt, batches, accuracy, seed):
    (xs, ys), (xt, _), test = scans(200, False, 1), scans(200, True, 2), scans(300, True, 3)
    turn = RandAppearanced("image", prob=0.0, invert=0.5).set_random_state(seed)
    randomised = torch.cat([turn({"image": image})["image"][None] for image in xs.repeat(2, 1, 1, 1)])
    plain = adapt(None, network_of(seed), batches(xs, ys, size=32), None, epochs=4, seed=seed)
    both = batches(randomised, ys.repeat(2), size=32)
    robust = adapt(None, network_of(seed), both, None, epochs=4, seed=seed)
    before, after = accuracy(plain, *test), accuracy(robust, *test)
    taught = adapt(PseudoLabel(), robust, both, batches(xt, size=32), epochs=2, seed=seed)
    assert after > before + 0.1
    assert accuracy(taught, *test) > max(after - 0.02, 0.9)
