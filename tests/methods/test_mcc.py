import math

import pytest
import torch

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields
from monai_transfer.methods.mcc import Mcc, class_confusion_loss


def by_loops(logits, temperature):
    """The paper's formula, case by case."""
    p = [[math.exp(v / temperature) for v in row] for row in logits.tolist()]
    p = [[v / sum(row) for v in row] for row in p]
    sure = [1 + math.exp(sum(v * math.log(v + 1e-5) for v in row)) for row in p]
    weight = [len(p) * s / sum(sure) for s in sure]
    k = len(p[0])
    c = [[sum(w * row[i] * row[j] for w, row in zip(weight, p, strict=True)) for j in range(k)] for i in range(k)]
    return sum(c[i][j] / sum(c[i]) for i in range(k) for j in range(k) if i != j) / k


def test_golden_value():
    torch.manual_seed(0)
    z = torch.randn(8, 4, dtype=torch.float64)
    assert class_confusion_loss(z).item() == pytest.approx(0.7222522924, abs=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_agrees_with_the_formula_written_out(temperature):
    z = 3 * torch.randn(7, 5, dtype=torch.float64)
    assert class_confusion_loss(z, temperature).item() == pytest.approx(by_loops(z, temperature), abs=1e-12)


def test_weights_are_constants_for_the_gradient():
    z = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    class_confusion_loss(z).backward()
    p = (z.detach() / 2.5).softmax(1)
    weight = 1 + (p * (p + 1e-5).log()).sum(1).exp()
    weight = 6 * weight / weight.sum()

    def fixed(x):
        q = (x / 2.5).softmax(1)
        c = q.T @ torch.diag(weight) @ q
        c = c / c.sum(1, keepdim=True)
        return (c.sum() - c.trace()) / 3

    (expected,) = torch.autograd.grad(fixed(z), z)
    torch.testing.assert_close(z.grad, expected)


def test_extremes_one_channel_and_half_precision():
    assert class_confusion_loss(200 * torch.eye(4)).item() == pytest.approx(0, abs=1e-6)
    assert class_confusion_loss(torch.zeros(5, 4)).item() == pytest.approx(0.75)
    one = torch.randn(6, 1)
    torch.testing.assert_close(class_confusion_loss(one), class_confusion_loss(torch.cat([torch.zeros(6, 1), one], 1)))
    assert class_confusion_loss((300 * torch.randn(8, 5)).half()).isfinite()


def test_weight_follows_the_number_of_classes():
    for classes, weight in ((1, 0.1), (2, 0.1), (3, 0.1), (4, 1.0), (10, 1.0)):
        z = torch.randn(8, classes)
        torch.testing.assert_close(Mcc()(Fields(target_logits=z), 0.5), weight * class_confusion_loss(z))
    torch.testing.assert_close(Mcc(weight=2.0)(Fields(target_logits=z), 0.5), 2 * class_confusion_loss(z))


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="N x K logits"):
        class_confusion_loss(torch.zeros(2, 3, 4, 4))
    with pytest.raises(InputError, match="temperature of MCC is positive"):
        Mcc(temperature=0.0)


def ring(n, degrees, seed):
    """Five Gaussian classes on a circle, turned."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 5
    angle = 2 * math.pi * y / 5 + math.radians(degrees)
    return torch.stack([2 * angle.cos(), 2 * angle.sin()], 1) + 0.25 * torch.randn(n, 2, generator=g), y


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seed", SEEDS)
def test_follows_a_rotation(adapt, batches, perceptron, accuracy, seed):
    source, target, test = batches(*ring(300, 0, 1)), batches(ring(300, 28, 2)[0]), ring(500, 28, 3)
    before = accuracy(adapt(None, perceptron(classes=5, seed=seed), source, None, seed=seed), *test)
    after = accuracy(adapt(Mcc(), perceptron(classes=5, seed=seed), source, target, seed=seed), *test)
    assert before < 0.95
    assert after > 0.99
