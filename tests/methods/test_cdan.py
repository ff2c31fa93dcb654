import itertools
import math

import pytest
import torch
from torch import nn

from monai_transfer.methods.base import Fields
from monai_transfer.methods.cdan import Cdan, entropy_weights, multilinear_map, randomised_map


def make_fields(n=6, m=4, classes=3, width=5, spatial=(), dtype=torch.float32):
    return Fields(
        source_features=torch.randn(n, width, dtype=dtype),
        target_features=torch.randn(m, width, dtype=dtype),
        source_logits=torch.randn(n, classes, *spatial, dtype=dtype),
        target_logits=torch.randn(m, classes, *spatial, dtype=dtype),
    )


def ready(method, fields):
    method.setup(nn.Identity(), fields)
    return method


def test_maps_entry_by_entry():
    f, g = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64).softmax(1)
    h = multilinear_map(f, g)
    for n, c, k in itertools.product(range(2), range(3), range(4)):
        assert h[n, c * 4 + k].item() == pytest.approx(g[n, c].item() * f[n, k].item())
    rf, rg = torch.randn(4, 7, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    r = randomised_map(f, g, rf, rg)
    for n, j in itertools.product(range(2), range(7)):
        left = sum(f[n, k] * rf[k, j] for k in range(4))
        right = sum(g[n, c] * rg[c, j] for c in range(3))
        assert r[n, j].item() == pytest.approx((left * right / math.sqrt(7)).item())


def test_randomised_map_keeps_inner_products_in_expectation():
    f, g = torch.randn(2, 6), torch.randn(2, 3).softmax(1)
    rf, rg = torch.randn(6, 200_000), torch.randn(3, 200_000)
    full, random = multilinear_map(f, g), randomised_map(f, g, rf, rg)
    torch.testing.assert_close(random @ random.T, full @ full.T, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("entropy", [False, True])
def test_term_written_out(entropy):
    fields = make_fields()
    method = ready(Cdan(entropy=entropy), fields)
    expected = 0.0
    for domain, target in (("source", 0), ("target", 1)):
        f, z = fields[f"{domain}_features"], fields[f"{domain}_logits"]
        losses, weights = [], []
        for n in range(len(f)):
            p = [math.exp(v) for v in z[n].tolist()]
            p = [v / sum(p) for v in p]
            h = torch.tensor([pc * fk for pc in p for fk in f[n].tolist()])
            d = torch.sigmoid(method.discriminator(h[None]))[0, 0].item()
            losses.append(-math.log(d if target else 1 - d))
            weights.append(1 + math.exp(sum(v * math.log(v) for v in p)) if entropy else 1.0)
        expected += 0.5 * sum(w * v for w, v in zip(weights, losses, strict=True)) / sum(weights)
    assert method(fields, 0.4).item() == pytest.approx(expected, rel=1e-4)


def test_weights_are_normalised_per_domain():
    certain, unsure = torch.zeros(4), torch.full((4,), 1.0)
    assert entropy_weights(certain).sum() == pytest.approx(1)
    assert entropy_weights(unsure).sum() == pytest.approx(1)
    mixed = entropy_weights(torch.tensor([0.0, 1.0]))
    assert mixed[0] / mixed[1] == pytest.approx(2 / (1 + math.exp(-1)))


def test_gradients_are_reversed_for_the_network_only_and_predictions_are_constants():
    fields = make_fields(dtype=torch.float64)
    for value in fields.values():
        value.requires_grad_()
    method = ready(Cdan(entropy=False), fields).double()
    method(fields, 1.0).backward()
    assert fields.source_logits.grad is None
    assert fields.target_logits.grad is None
    reversed_gradient = fields.target_features.grad.clone()
    own = [p.grad.clone() for p in method.parameters()]
    # the same loss without the reversal, by hand
    features = fields.target_features.detach().requires_grad_()
    logits = [method.discriminator(multilinear_map(f, fields[f"{d}_logits"].detach().softmax(1))) for d, f in
              (("source", fields.source_features.detach()), ("target", features))]  # fmt: skip
    loss = 0.5 * (nn.functional.softplus(logits[0]).mean() + nn.functional.softplus(-logits[1]).mean())
    grads = torch.autograd.grad(loss, [features, *method.parameters()])
    torch.testing.assert_close(reversed_gradient, -0.9999092 * grads[0], rtol=1e-5, atol=1e-9)
    for mine, expected in zip(own, grads[1:], strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-7)


def test_at_the_start_the_network_feels_nothing():
    fields = make_fields()
    for value in fields.values():
        value.requires_grad_()
    method = ready(Cdan(), fields)
    method(fields, 0.0).backward()
    assert fields.target_features.grad.abs().max() == 0
    assert fields.target_logits.grad.abs().max() == 0
    assert all(p.grad.abs().sum() > 0 for p in method.parameters())


def test_large_products_are_randomised_and_survive_a_checkpoint():
    fields = make_fields(width=2000)
    method = ready(Cdan(), fields)
    assert method.r_features.shape == (2000, 1024)
    torch.manual_seed(5)
    other = ready(Cdan(), fields)
    assert other(fields, 0.5) != method(fields, 0.5)
    other.load_state_dict(method.state_dict())
    assert other(fields, 0.5) == method(fields, 0.5)


@pytest.mark.parametrize(("classes", "spatial"), [(1, (4, 4)), (3, (4, 4, 4)), (1, ())])
def test_segmentation_and_single_channel_outputs(classes, spatial):
    fields = make_fields(classes=classes, spatial=spatial)
    method = ready(Cdan(), fields)
    term = method(fields, 0.5)
    assert term.ndim == 0
    assert torch.isfinite(term)
    assert 0 <= float(method.log()["discriminator_accuracy"]) <= 1


def play(method, seed, steps=400):
    """Clusters moved far enough that the target's left class lies where the source's right class is."""
    torch.manual_seed(seed)

    def draw(n, shift):
        y = torch.arange(n) % 2
        centres = torch.tensor([[-2.0, 0.8], [2.0, -0.8]])
        return centres[y] + 0.4 * torch.randn(n, 2) + torch.tensor([shift, 0.0]), y

    encoder = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 8))
    head = nn.Linear(8, 2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 3e-3)
    own = None

    def features(x, domain):
        return encoder(torch.cat([x, torch.full((len(x), 1), float(domain))], 1))

    for step in range(steps):
        (xs, ys), (xt, _) = draw(32, 0.0), draw(32, 4.0)
        fs, ft = features(xs, 0), features(xt, 1)
        zs, zt = head(fs), head(ft)
        loss = nn.functional.cross_entropy(zs, ys)
        if method is not None:
            fields = Fields(source_features=fs, target_features=ft, source_logits=zs, target_logits=zt)
            if own is None:
                method.setup(nn.Identity(), fields)
                own = method.make_optimizer()
            loss = loss + method(fields, step / steps)
            own.zero_grad()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if own is not None:
            own.step()
    xt, yt = draw(400, 4.0)
    return (head(features(xt, 1)).argmax(1) == yt).float().mean().item()


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seed", SEEDS)
def test_aligns_classes_across_a_shift(seed):
    assert play(None, seed) < 0.6
    assert play(Cdan(), seed) > 0.9
