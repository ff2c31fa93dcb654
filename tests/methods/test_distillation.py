"""Distillation: the formula, the frozen teacher, another architecture, other classes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn
from torch.nn import functional as F

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields
from monai_transfer.methods.distillation import Distillation, distillation_loss, kept_classes_loss


@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3, 3), (2, 2, 3, 2, 4)])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_against_torch(shape, temperature):
    student, teacher = torch.randn(*shape, dtype=torch.float64), torch.randn(*shape, dtype=torch.float64)
    flat = [x.movedim(1, -1).reshape(-1, shape[1]) / temperature for x in (student, teacher)]
    expected = F.kl_div(F.log_softmax(flat[0], 1), F.softmax(flat[1], 1), reduction="batchmean") * temperature**2
    assert distillation_loss(student, teacher, temperature).item() == pytest.approx(expected.item())
    assert distillation_loss(teacher, teacher, temperature).item() == pytest.approx(0, abs=1e-12)


def test_single_channel_is_a_sigmoid():
    student, teacher = torch.tensor([[0.3]]), torch.tensor([[-1.2]])
    p, q = 1 / (1 + math.exp(1.2 / 2)), 1 / (1 + math.exp(-0.3 / 2))
    expected = 4 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    assert distillation_loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_copy_of_the_start_stays_as_it_was():
    network = UNet(2, 1, 2, (4, 8), (2,), norm="batch", dropout=0.5)
    image = torch.randn(2, 1, 8, 8)
    method = Distillation()
    method.setup(network, Fields(source_image=image, source_logits=network(image)))
    start = copy.deepcopy(method.state_dict())
    method.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    term = method(Fields(source_image=image, source_logits=network.train()(image)), 0.5)
    assert term.item() > 0
    term.backward()
    optimizer.step()
    assert all(torch.equal(start[k], v) for k, v in method.state_dict().items()) and start
    assert method.make_optimizer() is None
    network.eval()
    with torch.no_grad():  # in eval mode and at the start's weights the two agree
        network.load_state_dict({k.removeprefix("teacher."): v for k, v in start.items()})
        assert method(Fields(source_image=image, source_logits=network(image)), 0.5).item() == pytest.approx(
            0, abs=1e-7
        )


def test_into_a_smaller_network(adapt, clouds, batches, perceptron, accuracy):
    """No labels: only what the teacher says; the small student becomes as good as it."""
    x, y = clouds(300, 0.0, 0)
    teacher = adapt(None, perceptron(), batches(x, y, length=30), None, epochs=4)

    class TermAlone(Distillation):
        supervised = False

    student = adapt(
        TermAlone(teacher=teacher), perceptron(width=4, seed=3), batches(x, y * 0, length=30), None, epochs=6
    )
    assert accuracy(teacher, x, y) > 0.95
    assert accuracy(student, x, y) > 0.95


def test_forgets_less(adapt, clouds, batches, perceptron):
    """Fine-tuned to flipped labels in a corner, the network with its old self as teacher keeps more of its answers."""
    x, y = clouds(300, 0.0, 0)
    start = adapt(None, perceptron(), batches(x, y, length=30), None, epochs=4)
    corner = x[:, 1] > 0.8
    changed = []
    for method in (None, Distillation(weight=5.0)):
        network = adapt(method, copy.deepcopy(start), batches(x[corner], 1 - y[corner], length=20), None, epochs=2)
        changed.append((network(x) - start(x)).abs().mean().item())
    assert changed[1] < 0.7 * changed[0]


def test_other_classes_need_a_head(adapt, clouds, batches, perceptron):
    x, y = clouds(100, 0.0, 0)
    teacher = perceptron(classes=5, seed=4)
    with pytest.raises(InputError, match="give a head"):
        adapt(Distillation(teacher=teacher), perceptron(), batches(x, y, length=2), None, epochs=1)
    with pytest.raises(InputError, match=r"the head does not take the network's features of \(\d+, 32\)"):
        adapt(
            Distillation(teacher=teacher, head=nn.Linear(7, 5)), perceptron(), batches(x, y, length=2), None, epochs=1
        )
    method = Distillation(teacher=teacher, head=nn.Linear(32, 5))
    before = method.head.weight.detach().clone()
    adapt(method, perceptron(), batches(x, y, length=5), None, epochs=1)
    assert not torch.equal(before, method.head.weight)
    assert "source_features" not in Distillation.needs, "only this one asks for features"


def test_bad_values():
    with pytest.raises(InputError):
        Distillation(temperature=0)
    with pytest.raises(ValueError):
        distillation_loss(torch.randn(2, 3), torch.randn(2, 4))


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5, 6)])
def test_kept_classes_against_the_sum_of_probabilities(shape):
    """The new class counts as the background it was; places that the label knows have no term."""
    student, teacher = torch.randn(*shape, dtype=torch.float64), torch.randn(*shape, dtype=torch.float64)
    p, q = F.softmax(student, 1), F.softmax(teacher[:, [0, 2]], 1)
    ours = torch.stack([p[:, 0] + p[:, 1], p[:, 2]], 1)
    each = (q * (q / ours).log()).sum(1)
    found = kept_classes_loss(student, teacher, [0, 2], temperature=1.0)
    assert found.item() == pytest.approx(each.mean().item())
    label = torch.ones(shape)
    label[0, 2] = -1  # nobody looked for output 2 in the first case
    found = kept_classes_loss(student, teacher, [0, 2], label, temperature=1.0)
    assert found.item() == pytest.approx(each[0].mean().item())
    assert kept_classes_loss(student, teacher, [0, 2], label.abs()).item() == 0
    moved = kept_classes_loss(
        student, teacher + torch.tensor([0.0, 9.0, 0.0]).reshape(3, *[1] * (len(shape) - 2)), [0, 2]
    )
    assert moved.item() == pytest.approx(kept_classes_loss(student, teacher, [0, 2]).item())


def test_kept_findings_are_compared_one_by_one():
    student, teacher = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    label = torch.randint(-1, 2, (6, 3), generator=torch.Generator().manual_seed(1)).double()
    q = teacher.sigmoid()
    each = F.binary_cross_entropy_with_logits(student, q, reduction="none") - F.binary_cross_entropy(
        q, q, reduction="none"
    )
    wanted = each[:, 1:][label[:, 1:] < 0].mean()
    found = kept_classes_loss(student, teacher, [1, 2], label, 1.0, "sigmoid")
    assert found.item() == pytest.approx(wanted.item())
    assert "regression" in Distillation(kept=[1], activation="sigmoid").tasks, "several findings are trained as that"
    assert "regression" not in Distillation(kept=[1]).tasks


@pytest.mark.parametrize("options", [{"kept": []}, {"kept": [0], "head": nn.Linear(2, 2)}, {"activation": "relu"}])
def test_options_that_cannot_be_meant(options):
    with pytest.raises(InputError):
        Distillation(**options)
