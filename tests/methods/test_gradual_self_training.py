import math

import pytest
import torch
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields
from monai_transfer.methods.gradual_self_training import GradualSelfTraining


def test_term_on_the_members_of_the_stage():
    network = nn.Linear(2, 3).double()
    method = GradualSelfTraining(stages=2, drop=0.25)
    image = torch.randn(10, 2, dtype=torch.float64)
    order = torch.linspace(0, 1, 10)
    logits = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    fields = Fields(target_image=image, target_logits=logits, target_order=order)
    method.setup(network, fields)
    term = method(fields, 0.2)
    taught = network(image[:5]).softmax(1).detach()  # orders 0 .. 0.44
    sure = taught.amax(1).argsort(descending=True)[:4]  # the least sure of five is dropped
    torch.testing.assert_close(term, nn.functional.cross_entropy(logits[:5][sure], taught.argmax(1)[sure]))
    term.backward()
    assert logits.grad[5:].abs().max() == 0
    assert network.weight.grad is None


def test_the_teacher_waits_for_the_end_of_its_stage():
    network = nn.Linear(2, 2)
    method = GradualSelfTraining(stages=2)
    fields = Fields(
        target_image=torch.randn(6, 2), target_logits=torch.randn(6, 2, requires_grad=True), target_order=torch.rand(6)
    )
    method.setup(network, fields)
    with torch.no_grad():
        network.weight.add_(1.0)
    method.after_step(network, 0.4)
    assert not torch.equal(method.teacher.weight, network.weight)
    assert method(fields, 0.5) == 0  # the first iteration of the new stage: nothing from the old teacher
    method.after_step(network, 0.5)
    torch.testing.assert_close(method.teacher.weight, network.weight)
    assert not method.teacher.weight.requires_grad
    other = GradualSelfTraining(stages=2)
    other.setup(nn.Linear(2, 2), fields)
    other.load_state_dict(method.state_dict())
    assert other(fields, 0.6) == method(fields, 0.6)


def test_needs_an_order():
    method = GradualSelfTraining()
    method.setup(nn.Linear(2, 2), Fields())
    with pytest.raises(InputError, match="order"):
        method(Fields(target_image=torch.randn(2, 2), target_logits=torch.randn(2, 2)), 0.0)
    with pytest.raises(ValueError, match="stages"):
        GradualSelfTraining(stages=0)


def turned_clouds(n, degrees, seed):
    """Two classes on opposite sides of the origin, turned."""
    g = torch.Generator().manual_seed(seed)
    y, angle = torch.arange(n) % 2, math.radians(degrees)
    centres = torch.tensor([[2 * math.cos(angle), 2 * math.sin(angle)]])
    return (1 - 2 * y[:, None]) * centres + 0.5 * torch.randn(n, 2, generator=g), y


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_right_order_beats_one_step_and_a_wrong_order(adapt, batches, accuracy, seed):
    parts = [turned_clouds(60, degrees, degrees + 1) for degrees in range(0, 121, 5)]
    images = torch.cat([x for x, _ in parts])
    order = torch.linspace(0, 1, len(images))
    source, test = batches(*turned_clouds(300, 0, 500)), turned_clouds(400, 120, 501)

    def run(stages, order):
        # a small model: an over-parameterised one without regularisation explains each stage and hardly moves
        torch.manual_seed(seed)
        network = adapt(None, nn.Linear(2, 2), source, None, lr=0.02, seed=seed)
        target = batches(images, order=order, size=300)
        return accuracy(adapt(GradualSelfTraining(stages), network, source, target, lr=0.02, seed=seed), *test)

    assert run(6, order) > 0.95
    assert run(1, order) < 0.3
    assert run(6, order.flip(0)) < 0.3
