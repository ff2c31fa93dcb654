import math

import pytest
import torch
from torch import nn

from monai_transfer.methods.base import Fields
from monai_transfer.methods.mmd import Mmd, joint_mmd_loss, mmd_loss

DOMAINS = ("source", "target")


def by_loops(source, target, unbiased=False, source_p=None, target_p=None):
    """The formula of the paper, pair by pair."""
    points = [*source.tolist(), *target.tolist()]
    square = [[sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for y in points] for x in points]
    count, n = len(points), len(source)
    mean = sum(map(sum, square)) / (count * (count - 1))

    def kernel(i, j):
        value = sum(math.exp(-square[i][j] / (2 * 2.0**u * mean)) for u in range(-3, 2))
        if source_p is not None:
            p = [*source_p.tolist(), *target_p.tolist()]
            value *= math.exp(-sum((a - b) ** 2 for a, b in zip(p[i], p[j], strict=True)) / (2 * 0.92**2))
        return value

    def average(rows, columns, skip):
        values = [kernel(i, j) for i in rows for j in columns if not (skip and i == j)]
        return sum(values) / len(values)

    s, t = range(n), range(n, count)
    return average(s, s, unbiased) + average(t, t, unbiased) - 2 * average(s, t, False)


@pytest.mark.parametrize("unbiased", [False, True])
def test_agrees_with_the_formula_written_out(unbiased):
    source = torch.randn(6, 3, dtype=torch.float64)
    target = 1.5 * torch.randn(9, 3, dtype=torch.float64) + 0.5
    assert mmd_loss(source, target, unbiased=unbiased).item() == pytest.approx(
        by_loops(source, target, unbiased), abs=1e-12
    )


def test_joint_agrees_with_the_formula_written_out():
    source, target = torch.randn(6, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    p, q = torch.randn(6, 4, dtype=torch.float64).softmax(1), torch.randn(5, 4, dtype=torch.float64).softmax(1)
    assert joint_mmd_loss(source, target, p, q).item() == pytest.approx(
        by_loops(source, target, source_p=p, target_p=q), abs=1e-12
    )


def test_zero_for_itself_and_never_negative():
    x = torch.randn(8, 5)
    assert mmd_loss(x, x).item() == pytest.approx(0, abs=1e-6)
    assert mmd_loss(x, x, unbiased=True).item() > -1  # five kernels of at most 1 each: never a large negative value
    assert all(mmd_loss(torch.randn(5, 3), torch.randn(4, 3)) >= -1e-6 for _ in range(20))
    same = torch.ones(4, 3, requires_grad=True)
    mmd_loss(same, torch.ones(4, 3)).backward()  # all points equal: no division by zero
    assert torch.isfinite(same.grad).all()


def test_permutation_scale_and_shift_do_not_matter():
    source, target = torch.randn(8, 5, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64) + 1
    value = mmd_loss(source, target)
    torch.testing.assert_close(mmd_loss(source[torch.randperm(8)], target[torch.randperm(8)]), value)
    torch.testing.assert_close(mmd_loss(3 * source + 7, 3 * target + 7), value)
    torch.testing.assert_close(mmd_loss(target, source), value)


def test_bandwidth_is_a_constant_for_the_gradient():
    source = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    target = torch.randn(5, 2, dtype=torch.float64)
    mmd_loss(source, target).backward()
    points = torch.cat([source, target]).detach()
    mean = torch.pdist(points).square().mean()  # distinct pairs, by another road

    def fixed(x):
        z = torch.cat([x, target])
        k = sum(torch.exp(-torch.cdist(z, z).square() / (2 * 2.0**u * mean)) for u in range(-3, 2))
        return k[:5, :5].mean() + k[5:, 5:].mean() - 2 * k[:5, 5:].mean()

    (expected,) = torch.autograd.grad(fixed(source), source)
    torch.testing.assert_close(source.grad, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype):
    value = mmd_loss((300 * torch.randn(8, 64)).to(dtype), (300 * torch.randn(8, 64) + 100).to(dtype))
    assert value.dtype == torch.float32
    assert 0 < value < 10


def test_refuses_single_cases_and_spatial_features():
    with pytest.raises(ValueError, match="two cases"):
        mmd_loss(torch.randn(1, 3), torch.randn(4, 3))
    with pytest.raises(ValueError, match="pool"):
        mmd_loss(torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2))


def adapted_accuracy(method, seed):
    """Two classes seen under a shift along a direction that the classifier uses; labels of the source alone."""
    torch.manual_seed(seed)

    def draw(n, shift):
        y = torch.arange(n) % 2
        x = torch.randn(n, 2) * torch.tensor([0.5, 0.5]) + torch.stack([4.0 * y - 2, torch.zeros(n)], 1)
        return x + torch.tensor([shift, 0.0]), y

    encoder, head = nn.Linear(3, 8), nn.Linear(8, 2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 1e-2)

    def features(x, domain):  # the input tells the domain: it can be aligned, as an image's look tells its scanner
        return encoder(torch.cat([x, torch.full((len(x), 1), float(domain))], 1))

    for _ in range(250):
        (xs, ys), (xt, _) = draw(32, 0.0), draw(32, 3.0)
        fs, ft = features(xs, 0), features(xt, 1)
        loss = nn.functional.cross_entropy(head(fs), ys)
        if method is not None:
            fields = Fields(source_features=fs, target_features=ft, source_logits=head(fs), target_logits=head(ft))
            loss = loss + method(fields, 0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    xt, yt = draw(400, 3.0)
    return (head(features(xt, 1)).argmax(1) == yt).float().mean().item()


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_aligns_a_covariate_shift(joint, seed):
    assert adapted_accuracy(None, seed) < 0.75
    assert adapted_accuracy(Mmd(joint=joint, weight=1.0), seed) > 0.95


def test_joint_pools_the_outputs_of_a_segmentation():
    fields = Fields(
        source_features=torch.randn(4, 6),
        target_features=torch.randn(4, 6),
        source_logits=torch.randn(4, 1, 5, 5, 5),
        target_logits=torch.randn(4, 1, 5, 5, 5),
    )
    pooled = [torch.cat([1 - p, p], 1) for p in (fields[f"{d}_logits"].sigmoid().mean((2, 3, 4)) for d in DOMAINS)]
    expected = joint_mmd_loss(fields.source_features, fields.target_features, *pooled, unbiased=True)
    torch.testing.assert_close(Mmd(joint=True)(fields, 0.0), 0.1 * expected)
