import pytest
import torch
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields
from monai_transfer.methods.mcd import Mcd, discrepancy


def make_fields(spatial=(), classes=3, width=4, feature_spatial=None, n=5):
    inner = spatial if feature_spatial is None else feature_spatial
    label = torch.randint(0, max(classes, 2), (n, 1, *spatial)) if spatial else torch.randint(0, max(classes, 2), (n,))
    return Fields(
        source_features=torch.randn(n, width, *inner, requires_grad=True),
        target_features=torch.randn(n, width, *inner, requires_grad=True),
        source_logits=torch.randn(n, classes, *spatial),
        source_label=label,
    )


def ready(fields, **options):
    method = Mcd(**options)
    method.setup(nn.Identity(), fields)
    return method


def test_discrepancy_by_loops():
    a, b = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    p, q = a.softmax(1).tolist(), b.softmax(1).tolist()
    expected = sum(abs(x - y) for r, s in zip(p, q, strict=True) for x, y in zip(r, s, strict=True)) / 12
    assert discrepancy(a, b).item() == pytest.approx(expected)
    assert discrepancy(a, a) == 0
    torch.testing.assert_close(discrepancy(a, b), discrepancy(b, a))


@pytest.mark.parametrize("spatial", [(), (4, 4), (4, 4, 4)])
def test_who_learns_when(spatial):
    fields = make_fields(spatial)
    method = ready(fields)
    method(fields, 0.0).backward()
    assert all(p.grad is None for p in method.parameters())  # the term leaves the heads alone
    towards = fields.target_features.grad.clone()
    assert fields.source_features.grad.abs().sum() > 0
    detached = Fields({k: v.detach() for k, v in fields.items()})
    method.critic_step(detached).backward()
    assert all(p.grad.abs().sum() > 0 for p in method.parameters())

    # a small step of the target features along the term's gradient lowers the discrepancy
    def distance(target):
        return discrepancy(*(head(target) for head in method.heads)).item()

    target = fields.target_features.detach()
    assert distance(target - 1e-2 * towards / towards.norm()) < distance(target)


def test_the_critic_widens_what_the_term_narrows():
    fields = make_fields()
    method = ready(fields, weight=5.0)
    optimizer = method.make_optimizer()
    start = discrepancy(*(h(fields.target_features) for h in method.heads)).item()
    for _ in range(100):
        optimizer.zero_grad()
        method.critic_step(Fields({k: v.detach() for k, v in fields.items()})).backward()
        optimizer.step()
    method(fields, 0.0)
    assert method.log()["discrepancy"] > start


@pytest.mark.parametrize(("spatial", "inner"), [((8, 8), (4, 4)), ((8, 8, 8), (4, 4, 4)), ((), (4, 4))])
def test_features_of_another_resolution(spatial, inner):
    fields = make_fields(spatial, classes=1, feature_spatial=inner)
    assert torch.isfinite(ready(fields)(fields, 0.0))


def test_refuses_pooled_features_for_a_segmentation_and_resumes():
    fields = make_fields((4, 4), feature_spatial=())
    with pytest.raises(ValueError, match="pool=None"):
        ready(fields)
    fields = make_fields()
    method, other = ready(fields), ready(fields)
    assert method(fields, 0) != other(fields, 0)
    other.load_state_dict(method.state_dict())
    assert method(fields, 0) == other(fields, 0)


def test_further_steps_move_the_features_alone(adapt, batches):
    """n - 1 more steps on the discrepancy, with the heads and the network's own head as they stand."""
    images, labels = torch.randn(8, 3), torch.arange(8) % 2

    def first_step(repeats):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        method = Mcd(hidden=4, repeats=repeats)
        loaders = batches(images, labels, length=1), batches(images + 1, length=1)
        adapt(method, network, *loaders, epochs=1, lr=1e-2, pool=None)
        return network, method, discrepancy(*(head(network[:2](images + 1)) for head in method.heads)).item()

    (once, heads, wide), (often, same_heads, narrow) = first_step(1), first_step(4)
    for a, b in zip(heads.parameters(), same_heads.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(once[2].weight, often[2].weight)
    assert not torch.equal(once[0].weight, often[0].weight)
    assert narrow < wide
    with pytest.raises(InputError, match="at least one"):
        Mcd(repeats=0)


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seed", SEEDS)
def test_undoes_a_shift(adapt, batches, clouds, perceptron, accuracy, seed):
    source, target, test = batches(*clouds(300, 0.0, 1)), batches(clouds(300, 2.5, 2)[0]), clouds(400, 2.5, 3)
    assert accuracy(adapt(None, perceptron(seed=seed), source, None), *test) < 0.8
    assert accuracy(adapt(Mcd(), perceptron(seed=seed), source, target, epochs=8, pool=None), *test) > 0.9
