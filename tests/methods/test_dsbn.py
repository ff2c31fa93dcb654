import copy

import pytest
import torch
from scipy.special import softmax
from torch import nn

from monai_transfer.engine.adapt import Adapt
from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields
from monai_transfer.methods.coral import Coral
from monai_transfer.methods.dsbn import Dsbn, mixed_labels
from monai_transfer.networks.schedules import dann_lambda


@pytest.mark.parametrize("progress", [0.0, 0.05, 1.0])
def test_labels_mix_teacher_and_network(progress):
    teacher, own = torch.randn(20, 3, 2), torch.randn(20, 3, 2)
    share = dann_lambda(progress)
    mixed = (1 - share) * softmax(teacher.numpy(), 1) + share * softmax(own.numpy(), 1)
    label, confidence = mixed_labels(teacher, own, progress)
    assert (label.numpy() == mixed.argmax(1)).all()
    torch.testing.assert_close(confidence, torch.from_numpy(mixed.max(1)))


def test_term_written_out_and_the_teacher_uses_the_batch():
    network = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    method = Dsbn(threshold=0.4)
    image = torch.randn(10, 2) + 3
    logits = torch.randn(10, 3, requires_grad=True)
    fields = Fields(target_image=image, target_logits=logits)
    method.setup(network, fields)
    term = method(fields, 0.0)
    answers = copy.deepcopy(network).train()(image).softmax(1)  # training mode: the batch's own statistics
    confidence, label = answers.max(1)
    chosen = confidence >= 0.4
    expected = nn.functional.cross_entropy(logits[chosen], label[chosen])
    torch.testing.assert_close(term, expected)
    assert method.log()["selected"] == chosen.float().mean()
    term.backward()
    assert all(p.grad is None for p in network.parameters())
    assert network[1].num_batches_tracked == 0
    other = Dsbn(threshold=0.4)
    other.setup(nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)), fields)
    other.load_state_dict(method.state_dict())
    assert other(fields, 0.0) == term
    strict = Dsbn(threshold=1.0)
    strict.setup(network, fields)
    assert strict(fields, 0.0) == 0  # nothing is sure enough


def bn_perceptron(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(2, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(),
        nn.Linear(32, 2),
    )  # fmt: skip


def scanned(moons, n, seed):
    """The target's scanner has another gain and offset."""
    x, y = moons(n, 0, seed)
    return 0.4 * x + torch.tensor([3.0, -2.0]), y


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seed", SEEDS)
def test_moved_normalisation(adapt, batches, moons, accuracy, seed):
    source, test = batches(*moons(300, 0, 1)), scanned(moons, 400, 3)
    target = batches(scanned(moons, 300, 2)[0])
    network = adapt(None, bn_perceptron(seed), source, None, seed=seed)
    before = accuracy(network, *test)
    names, kinds = list(network.state_dict()), [type(m) for m in network]
    network = adapt(Dsbn(), network, source, target, seed=seed, epochs=4)
    assert before < 0.75
    assert accuracy(network, *test) > 0.95
    assert list(network.state_dict()) == names  # a plain network that anyone can load
    assert [type(m) for m in network] == kinds


def test_any_method_can_have_it(adapt, batches, moons, accuracy):
    source, target = batches(*moons(200, 0, 1), length=5), batches(scanned(moons, 200, 2)[0], length=5)
    network = bn_perceptron(0)
    torch.manual_seed(0)
    adapt(Coral(), network, source, target, statistics="domain", epochs=6)
    with torch.no_grad():
        ours, theirs = (network[0](x).mean(0) for x in (scanned(moons, 200, 2)[0], moons(200, 0, 1)[0]))
    kept = network[1].running_mean  # follows the target alone
    assert (kept - ours).abs().mean() < 0.5 * (kept - theirs).abs().mean()
    with pytest.raises(InputError, match="no BatchNorm layer"):
        adapt(Dsbn(), nn.Linear(2, 2), source, target, epochs=1)
    with pytest.raises(InputError, match="one of both, target, kept, domain"):
        Adapt(Coral(), [], statistics="source")
