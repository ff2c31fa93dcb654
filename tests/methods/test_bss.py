"""BSS: the smallest singular values, their gradient, and small batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields
from monai_transfer.methods.bss import Bss, bss_penalty


@pytest.mark.parametrize("shape", [(6, 4), (4, 9), (5, 5)])
@pytest.mark.parametrize("k", [1, 2])
def test_against_numpy(shape, k):
    features = torch.randn(*shape, dtype=torch.float64)
    values = np.sort(np.linalg.svd(features.numpy(), compute_uv=False))
    assert bss_penalty(features, k).item() == pytest.approx((values[:k] ** 2).sum())
    assert bss_penalty(features[torch.randperm(shape[0])], k).item() == pytest.approx((values[:k] ** 2).sum())


def test_gradient_shrinks_the_smallest_direction_alone():
    features = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(bss_penalty, features)
    for _ in range(50):
        (gradient,) = torch.autograd.grad(bss_penalty(features), features)
        features = (features - 0.4 * gradient).detach().requires_grad_(True)
    before, after = torch.linalg.svdvals(torch.randn(0, 1)), torch.linalg.svdvals(features.detach())
    assert before.numel() == 0 and after[-1] < 1e-6 and after[-2] > 0.1


def test_small_batches_and_half_precision():
    assert bss_penalty(torch.randn(1, 8)).item() == 0, "the largest is never shrunk"
    two = torch.randn(2, 8)
    assert bss_penalty(two, 5).item() == pytest.approx(torch.linalg.svdvals(two)[1].item() ** 2, rel=1e-4)
    zeros = torch.zeros(3, 4, requires_grad=True)  # dead features: no gradient, but no NaN either
    bss_penalty(zeros).backward()
    assert zeros.grad.isfinite().all()
    broken = torch.tensor([[1.0, torch.nan], [2.0, torch.inf], [0.0, 1.0]], requires_grad=True)
    assert bss_penalty(broken).isnan() and bss_penalty(broken).requires_grad, "seen in the loss, as without BSS"
    with torch.autocast("cpu", torch.bfloat16):
        assert bss_penalty(torch.randn(4, 8).bfloat16()).dtype is torch.float32


def test_method_and_bad_values():
    features = torch.randn(4, 8)
    assert Bss()(Fields(source_features=features), 0.0).item() == pytest.approx(1e-3 * bss_penalty(features).item())
    with pytest.raises(InputError):
        Bss(k=0)
    with pytest.raises(ValueError):
        bss_penalty(torch.randn(2, 3, 4))


def test_in_a_trainer(adapt, clouds, batches, accuracy):
    x, y = clouds(200, 0.0, 0)
    smallest = []
    for method in (None, Bss(eta=0.1)):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
        network = adapt(method, network, batches(x, y, length=20), None, epochs=4, lr=1e-2)
        assert accuracy(network, x, y) > 0.9
        smallest.append(torch.linalg.svdvals(network[:2](x).detach())[-1].item())
    assert smallest[1] < 0.5 * smallest[0]
