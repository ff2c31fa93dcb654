import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import kneighbors_graph
from torch import nn

from monai_transfer.methods.base import Fields
from monai_transfer.methods.label_spreading import LabelSpreading, spread_labels


def test_agrees_with_the_closed_form():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 3)) * [1, 10, 100]  # standardising makes them equal
    labels = np.full(40, -1)
    labels[:6] = [0, 1, 2, 0, 1, 2]
    z = (features - features.mean(0)) / features.std(0)
    w = kneighbors_graph(z, 5, include_self=True).toarray()
    np.fill_diagonal(w, 0)
    # scikit-learn's graph: in-degrees, directed neighbours
    degree = np.where(w.sum(0) == 0, 1, w.sum(0))
    s = w / np.sqrt(np.outer(degree, degree))
    y = np.zeros((40, 3))
    y[np.arange(6), labels[:6]] = 1
    f = np.linalg.solve(np.eye(40) - 0.3 * s, 0.7 * y)
    mass = f.sum(1, keepdims=True)
    expected = np.where(mass > 0, f / np.where(mass > 0, mass, 1), 1 / 3)
    np.testing.assert_allclose(spread_labels(features, labels, 3, neighbours=5, alpha=0.3), expected, atol=2e-3)


def test_permutation_and_missing_classes():
    rng = np.random.default_rng(1)
    features, labels = rng.standard_normal((30, 4)), np.full(30, -1)
    labels[:4] = [0, 3, 0, 3]
    spread = spread_labels(features, labels, 5)
    assert spread.shape == (30, 5)
    np.testing.assert_allclose(spread.sum(1), 1)
    order = rng.permutation(30)
    np.testing.assert_allclose(spread_labels(features[order], labels[order], 5), spread[order], atol=1e-6)


def test_does_not_collapse_on_raw_deep_features():
    rng = np.random.default_rng(2)
    y = np.arange(120) % 3
    features = 30 + 20 * rng.standard_normal((3, 256))[y] + 5 * rng.standard_normal((120, 256))
    labels = np.where(np.arange(120) < 12, y, -1)
    assert (spread_labels(features, labels, 3).argmax(1) == y).all()


def make_fields(classes=2, n=8):
    return Fields(
        source_features=torch.randn(n, 3, requires_grad=True),
        target_features=torch.randn(n, 3, requires_grad=True),
        source_label=torch.arange(n) % max(classes, 2),
        source_logits=torch.randn(n, classes),
        target_logits=torch.randn(n, classes, requires_grad=True),
    )


@pytest.mark.parametrize("classes", [1, 3])
def test_term_written_out_and_labels_are_constants(classes):
    fields = make_fields(classes)
    method = LabelSpreading(start=0.0)
    method.setup(nn.Identity(), fields)
    term = method(fields, 0.0)
    c = max(classes, 2)
    features = torch.cat([fields.source_features, fields.target_features]).detach().numpy()
    labels = np.concatenate([fields.source_label.numpy(), np.full(8, -1)])
    taught = spread_labels(features, labels, c)[8:]
    z = fields.target_logits.detach().double()
    z = torch.cat([torch.zeros_like(z), z], 1) if classes == 1 else z
    logs = z.log_softmax(1).numpy()
    total = 0.0
    for f, p in zip(taught, logs, strict=True):
        h = -sum(v * math.log(v) for v in f if v > 0)
        total -= (1 - h / math.log(c)) * float(f @ p) / 8
    assert term.item() == pytest.approx(total, rel=1e-4)
    term.backward()
    assert fields.target_logits.grad.abs().sum() > 0
    assert fields.source_features.grad is None
    assert fields.target_features.grad is None


def test_memory_is_a_ring_and_survives_a_checkpoint():
    method = LabelSpreading(memory=12, start=0.5)
    method.setup(nn.Identity(), make_fields())
    batches = [make_fields() for _ in range(4)]
    for fields in batches:
        assert method(fields, 0.0) == 0
    kept = method.features[1].sort(0).values
    expected = torch.cat([batches[3].target_features, batches[2].target_features[4:]]).detach().sort(0).values
    torch.testing.assert_close(kept, expected)
    other = LabelSpreading(memory=12, start=0.5)
    other.setup(nn.Identity(), make_fields())
    other.load_state_dict(method.state_dict())
    assert other(batches[0], 0.6) == method(batches[0], 0.6)


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seed", SEEDS)
def test_follows_a_rotation(adapt, batches, moons, perceptron, accuracy, seed):
    source, target = batches(*moons(300, 0, 1)), batches(moons(300, 30, 2)[0])
    test = moons(400, 30, 3)
    before = accuracy(adapt(None, perceptron(seed=seed), source, None, epochs=4, seed=seed), *test)
    method = LabelSpreading(memory=128, start=0.2)
    after = accuracy(adapt(method, perceptron(seed=seed), source, target, layer="1", epochs=4, seed=seed), *test)
    assert before < 0.9
    assert after > 0.97
