"""Co-Tuning: the relationship, the loss, what is learned when, and a case that it is made for."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import DenseNet
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields
from monai_transfer.methods.co_tuning import CoTuning, category_relationship, co_tuning_loss


def test_relationship_written_out():
    predictions = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
    found = category_relationship(predictions, torch.tensor([2, 2, 0]), classes=4)
    torch.testing.assert_close(found, torch.tensor([[0.1, 0.9], [0, 0], [0.7, 0.3], [0, 0]]))


def test_loss_is_cross_entropy_with_the_rows():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
    torch.testing.assert_close(
        co_tuning_loss(logits, labels, torch.tensor([[0.0, 1, 0], [0, 0, 1]])),
        nn.functional.cross_entropy(logits, labels + 1),
    )


def parts(network, x):
    features = network[:4](x)
    return {"source_image": x, "source_features": features, "source_logits": network[4](features)}


def test_relationship_is_learned_from_the_source_model_and_then_kept(perceptron):
    network, x, y = perceptron(classes=3), torch.randn(12, 2), torch.arange(12) % 2
    head = nn.Linear(32, 5)
    method = CoTuning(source_head=copy.deepcopy(head), learn=0.5)
    said = torch.softmax(head(network[:4](x)), 1).detach()
    method.setup(network, Fields(**parts(network, x), source_label=y))
    expected = category_relationship(said, y, 3)
    with torch.no_grad():  # the network moves on; the source model does not
        network[0].weight.add_(1)
    for half in (slice(0, 6), slice(6, 12)):
        method(Fields(**parts(network, x[half]), source_label=y[half]), 0.1)
    torch.testing.assert_close(method.relationship, expected)
    method(Fields(**parts(network, x), source_label=1 - y), 0.6)
    torch.testing.assert_close(method.relationship, expected, msg="after `learn` it stands")
    twin = CoTuning(source_head=nn.Linear(32, 5), learn=0.5)
    twin.setup(perceptron(classes=3, seed=9), Fields(**parts(network, x), source_label=y))
    twin.load_state_dict(method.state_dict())
    torch.testing.assert_close(twin.relationship, expected)
    fields = Fields(**parts(network, x), source_label=y)
    torch.testing.assert_close(twin(fields, 0.9), method(fields, 0.9))


def test_a_source_head_with_dropout_tells_the_same_each_time(perceptron):
    network, x, y = perceptron(), torch.randn(40, 2), torch.arange(40) % 2
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(32, 5))
    method = CoTuning(source_head=copy.deepcopy(head))
    method.setup(network, Fields(**parts(network, x), source_label=y))
    method.train()
    assert method.source_head.training
    method(Fields(**parts(network, x), source_label=y), 0.0)
    said = torch.softmax(head.eval()(network[:4](x)), 1).detach()
    torch.testing.assert_close(method.relationship, category_relationship(said, y, 2))


def test_half_precision_weights_meet_wider_features(perceptron):
    network, x, y = perceptron().bfloat16(), torch.randn(8, 2).bfloat16(), torch.arange(8) % 2
    fields = parts(network, x) | {"source_label": y}
    fields["source_features"] = fields["source_features"].float()  # as pooling gives them
    method = CoTuning()
    method.setup(network, Fields(**fields))
    assert method(Fields(**fields), 0.0).isfinite()


def test_gradient_reaches_network_and_source_head(perceptron):
    network, x, y = perceptron(), torch.randn(8, 2), torch.arange(8) % 2
    method = CoTuning(relationship=[[1.0, 0.0], [0.0, 1.0]])
    method.setup(network, Fields(**parts(network, x), source_label=y))
    assert method.source_model is None, "a known relationship needs no second model"
    method(Fields(**parts(network, x), source_label=y), 0.0).backward()
    assert network[0].weight.grad.abs().sum() > 0
    learning = {id(p) for g in method.make_optimizer().param_groups for p in g["params"]}
    assert learning == {id(p) for p in method.source_head.parameters()}
    assert all(p.grad is not None for p in method.source_head.parameters()) and network[4].weight.grad is None


def test_helps_with_few_labels(adapt, batches, accuracy):
    """Four source classes, two target classes that are unions of them, four labels: the old classes help."""

    def sample(n, seed):
        g = torch.Generator().manual_seed(seed)
        fine = torch.arange(n) % 4
        centres = torch.tensor([[2.0, 0], [0, 2], [-2, 0], [0, -2]])
        useful = centres[fine] + 0.5 * torch.randn(n, 2, generator=g)
        return torch.cat([useful, 2 * torch.randn(n, 14, generator=g)], 1), fine

    plain, helped = [], []
    for seed in range(3):
        x, fine = sample(800, seed)
        torch.manual_seed(seed)
        source = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
        source = adapt(None, source, batches(x, fine, length=40), None, epochs=5, seed=seed)
        head = copy.deepcopy(source[2])
        test_x, test_fine = sample(800, seed + 50)
        few_x, few_fine = sample(8, seed + 100)
        for scores, method in ((plain, None), (helped, CoTuning(source_head=copy.deepcopy(head)))):
            network = copy.deepcopy(source)
            torch.manual_seed(seed + 7)
            network[2] = nn.Linear(32, 2)
            network = adapt(
                method, network, batches(few_x, few_fine // 2, length=20), None, epochs=5, lr=1e-2, seed=seed
            )
            scores.append(accuracy(network, test_x, test_fine // 2))
    assert sum(helped) > sum(plain) + 0.03, (plain, helped)


def test_monai_network_in_a_trainer(adapt, batches):
    network = DenseNet(2, 1, 2, init_features=4, growth_rate=2, block_config=(1,))
    method = CoTuning()
    x, y = torch.randn(16, 1, 16, 16), torch.arange(16) % 2
    adapt(method, network, batches(x, y, length=3, size=8), None, epochs=2)
    assert method.counts.sum() == 16, "two of the six steps lie in the first quarter of the run"
    torch.testing.assert_close(method.relationship.sum(1), torch.ones(2))


def test_what_does_not_fit_is_refused(perceptron):
    network, x, y = perceptron(), torch.randn(8, 2), torch.arange(8) % 2
    fields = Fields(**parts(network, x), source_label=y)
    with pytest.raises(InputError, match="does not take"):
        CoTuning(source_head=nn.Linear(7, 5)).setup(network, fields)
    with pytest.raises(InputError, match="relationship is"):
        CoTuning(relationship=torch.ones(3, 2)).setup(network, fields)
    with pytest.raises(InputError):
        CoTuning(learn=0)
