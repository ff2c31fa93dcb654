"""MIND-SSC against a plain loop over voxels, and its property: contrast hardly matters."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from monai.data import MetaTensor

from monai_transfer.data.augmentation import MINDSSC, MINDSSCd
from monai_transfer.errors import InputError


def slow(image, radius=1, sigma=1.0):
    """The definition in the docstring at the middle voxel of a small 3D image."""
    centre = [n // 2 for n in image.shape]
    steps = [(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)]
    pairs = [(j, k) for j, k in combinations(steps, 2) if sum((x - y) ** 2 for x, y in zip(j, k, strict=True)) == 2]
    distances = []
    total = sum(math.exp(-(d**2) / (2 * sigma**2)) for d in range(-radius, radius + 1)) ** 3
    window = [(x, y, z) for x in range(-radius, radius + 1) for y in range(-radius, radius + 1)
              for z in range(-radius, radius + 1)]  # fmt: skip
    for j, k in pairs:
        value = 0.0
        for p in window:
            weight = math.exp(-sum(v**2 for v in p) / (2 * sigma**2)) / total
            one, two = (image[tuple(c + a + b for c, a, b in zip(centre, p, step, strict=True))] for step in (j, k))
            value += weight * float(one - two) ** 2
        distances.append(value)
    mean = sum(distances) / len(distances)
    return [math.exp(-d / mean) for d in distances]


def test_it_is_the_definition(device):
    image = torch.rand(1, 9, 9, 9, dtype=torch.float64)
    found = MINDSSC()(image.to(device))[:, 4, 4, 4].cpu()
    assert len(found) == 12
    assert sorted(found.tolist()) == pytest.approx(sorted(slow(image[0])), rel=1e-6)


@pytest.mark.parametrize(("shape", "channels"), [((1, 14, 12), 4), ((2, 10, 9, 8), 24)])
def test_contrast_does_not_matter(shape, channels):
    image = torch.rand(shape)
    mind = MINDSSC()(image)
    assert mind.shape == (channels, *shape[1:]) and mind.min() > 0 and mind.max() <= 1
    for other in (3 * image - 7, image.max() - image):
        torch.testing.assert_close(MINDSSC()(other), mind, atol=2e-4, rtol=2e-3)
    assert not torch.allclose(MINDSSC()(torch.rand(shape)), mind, atol=0.1)
    greatest = MINDSSC(greatest_is_one=True)(image)
    greatest = greatest.view(shape[0], -1, *shape[1:]).amax(1)
    torch.testing.assert_close(greatest, torch.ones_like(greatest))


def test_flat_ground_and_dictionaries():
    flat = MINDSSC()(torch.zeros(1, 8, 8, 8))
    assert torch.equal(flat, torch.ones(12, 8, 8, 8))
    image = MetaTensor(torch.rand(1, 8, 8), affine=torch.eye(4) * 2)
    out = MINDSSCd(["image"])({"image": image, "label": 1})
    assert isinstance(out["image"], MetaTensor) and torch.equal(out["image"].affine, image.affine)
    with pytest.raises(InputError, match="2D or 3D"):
        MINDSSC()(torch.zeros(8, 8))
