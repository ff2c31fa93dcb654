import math

import numpy as np
import pytest
import torch

from monai_transfer.methods.base import Fields
from monai_transfer.methods.coral import Coral, coral_loss


def test_golden_value():
    torch.manual_seed(0)
    source = torch.randn(16, 5, dtype=torch.float64)
    target = 1.5 * torch.randn(16, 5, dtype=torch.float64) + 0.3
    assert coral_loss(source, target).item() == pytest.approx(0.1187458793, abs=1e-10)


@pytest.mark.parametrize(("n", "m", "width"), [(2, 2, 1), (5, 9, 4), (30, 8, 12)])
def test_agrees_with_numpy_and_is_what_it_should_be(n, m, width):
    source, target = torch.randn(n, width, dtype=torch.float64), 2 * torch.randn(m, width, dtype=torch.float64) + 1
    difference = np.cov(source.numpy().T) - np.cov(target.numpy().T)
    value = coral_loss(source, target).item()
    assert value == pytest.approx((np.atleast_2d(difference) ** 2).sum() / (4 * width**2))
    assert coral_loss(source, source) == 0
    assert coral_loss(target, source).item() == pytest.approx(value)
    assert coral_loss(source[torch.randperm(n)], target).item() == pytest.approx(value)  # the order of cases
    assert coral_loss(source + 5, target - 3).item() == pytest.approx(value)  # blind to means
    assert coral_loss(3 * source, 3 * target).item() == pytest.approx(81 * value)


def test_half_precision_does_not_overflow():
    source, target = 300 * torch.randn(8, 4), 100 * torch.randn(8, 4)
    half = coral_loss(source.half(), target.half())
    assert half.item() == pytest.approx(coral_loss(source, target).item(), rel=1e-2)


def test_refuses_single_cases_and_other_widths():
    with pytest.raises(ValueError, match="batch size"):
        coral_loss(torch.randn(1, 3), torch.randn(4, 3))
    with pytest.raises(ValueError, match="3 features and target 4"):
        coral_loss(torch.randn(4, 3), torch.randn(4, 4))


def test_the_method_is_the_loss():
    fields = Fields(source_features=torch.randn(6, 3), target_features=torch.randn(4, 3))
    assert Coral(standardise=False)(fields, 0.0) == coral_loss(fields.source_features, fields.target_features)


def test_standardised_it_does_not_depend_on_the_features_scale():
    s, t = torch.randn(16, 5, dtype=torch.float64), 1.5 * torch.randn(12, 5, dtype=torch.float64) + 0.3
    spread = torch.cat([s, t]).std(0)
    expected = coral_loss(s / spread, t / spread) + ((s.mean(0) - t.mean(0)) / spread).square().mean()
    for scale in (1.0, 1e-3, 1e3):
        fields = Fields(source_features=scale * s, target_features=scale * t)
        torch.testing.assert_close(Coral()(fields, 0.0), expected)
    dead = torch.cat([s, torch.zeros(16, 1)], 1), torch.cat([t, torch.zeros(12, 1)], 1)  # a feature that is always 0
    torch.testing.assert_close(
        Coral()(Fields(source_features=dead[0], target_features=dead[1]), 0.0),
        coral_loss(*(x / torch.cat([spread, torch.ones(1)]) for x in dead))
        + ((s.mean(0) - t.mean(0)) / spread).square().sum() / 6,
    )
    same = torch.ones(4, 3, requires_grad=True)
    Coral()(Fields(source_features=same, target_features=torch.ones(4, 3)), 0.0).backward()
    assert same.grad.isfinite().all()


def turned(n, degrees, seed):
    """Two classes on opposite sides of the origin, turned: the covariance tells how far."""
    g = torch.Generator().manual_seed(seed)
    y, angle = torch.arange(n) % 2, math.radians(degrees)
    x = 0.4 * torch.randn(n, 2, generator=g) + torch.tensor([[-2.0, 0.0], [2.0, 0.0]])[y]
    return x @ torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]), y


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_undoes_a_rotation(adapt, batches, perceptron, accuracy, seed):
    source, target, test = batches(*turned(300, 0, 1)), batches(turned(300, 75, 2)[0]), turned(400, 75, 3)
    before = accuracy(adapt(None, perceptron(seed=seed), source, None, seed=seed), *test)
    after = accuracy(adapt(Coral(), perceptron(seed=seed), source, target, seed=seed), *test)
    assert before < 0.9
    assert after > 0.97
