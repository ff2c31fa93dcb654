import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields
from monai_transfer.methods.mme import Mme, Prototypes


def make_fields(spatial=(), classes=3, width=4, inner=None, n=6):
    inner = spatial if inner is None else inner
    top = max(classes, 2)
    return Fields(
        source_features=torch.randn(n, width, *inner, requires_grad=True),
        target_features=torch.randn(n + 1, width, *inner, requires_grad=True),
        source_logits=torch.randn(n, classes, *spatial),
        source_label=torch.randint(0, top, (n, 1, *spatial)) if spatial else torch.randint(0, top, (n,)),
    )


def ready(fields, **options):
    method = Mme(**options)
    method.setup(nn.Identity(), fields)
    return method


@pytest.mark.parametrize("spatial", [(), (3, 4), (2, 3, 4)])
def test_term_written_out(spatial):
    fields = make_fields(spatial)
    method = ready(fields)
    w = method.prototypes.weight.detach().double().numpy()

    def logs(features):
        f = np.moveaxis(features.detach().double().numpy(), 1, -1).reshape(-1, 4)
        return log_softmax(f / np.linalg.norm(f, axis=1, keepdims=True) @ w.T / 0.05, axis=1)

    label = fields.source_label.numpy().reshape(-1)
    source, target = logs(fields.source_features), logs(fields.target_features)
    expected = -source[np.arange(len(label)), label].mean() + 0.1 * (np.exp(target) * target).sum(1).mean()
    assert method(fields, 0.0).item() == pytest.approx(expected, rel=1e-4)


def test_prototypes_and_features_pull_the_entropy_apart():
    fields = make_fields()
    method = ready(fields)
    method(fields, 0.0)
    start = method.log()["target_entropy"].item()

    def entropy_at(target):
        method(Fields({**fields, "target_features": target}), 0.0)
        return method.log()["target_entropy"].item()

    only = ready(fields, weight=1e3)  # the entropy alone matters
    only.load_state_dict(method.state_dict())
    only(fields, 0.0).backward()
    features = fields.target_features.detach() - 1e-3 * nn.functional.normalize(fields.target_features.grad, dim=1)
    assert entropy_at(features) < start  # a step of the features down the loss makes them certain
    with torch.no_grad():
        gradient = only.prototypes.weight.grad
        method.prototypes.weight.sub_(1e-3 * gradient / gradient.norm())
    assert entropy_at(fields.target_features) > start  # and one of the prototypes makes them uncertain


def test_scores_are_blind_to_the_length_of_features():
    prototypes = Prototypes(4, 3, 0.05)
    x = torch.randn(5, 4)
    torch.testing.assert_close(prototypes(7 * x), prototypes(x))
    assert torch.isfinite(prototypes(torch.zeros(2, 4))).all()
    assert prototypes(x.half()).dtype == torch.float32


@pytest.mark.parametrize(("spatial", "inner"), [((8, 8), (4, 4)), ((8, 8, 8), (4, 4, 4)), ((), (4, 4))])
def test_features_of_another_resolution_and_one_channel(spatial, inner):
    fields = make_fields(spatial, classes=1, inner=inner)
    method, other = ready(fields), ready(fields)
    assert torch.isfinite(method(fields, 0.0))
    assert method(fields, 0.0) != other(fields, 0.0)
    other.load_state_dict(method.state_dict())
    assert method(fields, 0.0) == other(fields, 0.0)


def test_refusals():
    with pytest.raises(InputError, match="unpooled"):
        ready(make_fields((4, 4), inner=()))
    with pytest.raises(InputError, match="positive"):
        Mme(temperature=0)


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seed", SEEDS)
def test_few_labelled_target_cases_go_further(adapt, batches, clouds, perceptron, accuracy, seed):
    """A shift that makes the source useless, and three labelled target cases of each class, half of every batch."""
    (xs, ys), (xt, yt), test = clouds(300, 0.0, 1), clouds(300, 3.2, 2), clouds(400, 3.2, 3)
    few = torch.cat([(yt == c).nonzero()[:3, 0] for c in range(2)])
    source = batches(torch.cat([xs, xt[few].repeat(50, 1)]), torch.cat([ys, yt[few].repeat(50)]))
    before = accuracy(adapt(None, perceptron(seed=seed), source, None, seed=seed), *test)
    after = accuracy(adapt(Mme(), perceptron(seed=seed), source, batches(xt), pool=None, seed=seed), *test)
    assert after > before + 0.025
