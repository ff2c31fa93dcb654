import copy

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import nn

from monai_transfer.methods.base import Fields
from monai_transfer.methods.co_training import CoTraining, adversarial_example, jensen_shannon


def test_divergence_agrees_with_scipy():
    a, b = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    expected = (jensenshannon(a.softmax(1).T.numpy(), b.softmax(1).T.numpy()) ** 2).mean()
    assert jensen_shannon(a, b).item() == pytest.approx(expected)
    torch.testing.assert_close(jensen_shannon(a, b), jensen_shannon(b, a))
    assert jensen_shannon(a, a).item() == pytest.approx(0, abs=1e-9)
    assert torch.isfinite(jensen_shannon(torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]])))


def test_adversarial_example_is_the_fast_gradient_sign_and_leaves_the_network_alone():
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 3)).train()
    network[1].eval()  # a frozen part
    kept = copy.deepcopy(network.state_dict())
    image, label = torch.randn(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    attacked = adversarial_example(network, image, 0.1, label)
    twin = copy.deepcopy(network).eval()
    x = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(twin(x), label), x)
    torch.testing.assert_close(attacked, image + 0.1 * gradient.sign())
    loss = [nn.functional.cross_entropy(twin(z), label) for z in (image, attacked)]
    assert loss[1] > loss[0]
    assert [m.training for m in network] == [True, False, True, True]
    assert all(p.grad is None for p in network.parameters())
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, kept[key], rtol=0, atol=0)


def make(difference=0.5):
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x, z = torch.randn(6, 3), torch.randn(6, 3)
    fields = Fields(source_image=x, source_label=torch.tensor([0, 1] * 3), source_logits=network(x), target_image=z,
                    target_logits=network(z))  # fmt: skip
    method = CoTraining(difference=difference, eps=0.3, ramp=0.0)
    method.setup(network, fields)
    return network, fields, method


def test_term_written_out():
    network, fields, method = make()
    term = method(fields, 1.0)
    peer, ce = method.peer, nn.functional.cross_entropy
    p1, p2 = (net(fields.target_image).softmax(1) for net in (network, peer))
    m = (p1 + p2) / 2
    jsd = 0.5 * ((p1 * (p1 / m).log()).sum(1) + (p2 * (p2 / m).log()).sum(1)).mean()
    dif = 0.0
    for x, y in ((fields.source_image, fields.source_label), (fields.target_image, None)):
        for clean, other in ((network, peer), (peer, network)):
            z = x.clone().requires_grad_()
            out = clean(z)
            (g,) = torch.autograd.grad(ce(out, out.argmax(1) if y is None else y), z)
            dif = dif + ce(other(x + 0.3 * g.sign()), clean(x).softmax(1)) / 2  # six cases of each domain
    expected = ce(peer(fields.source_image), fields.source_label) + 10 * jsd + 0.5 * dif
    torch.testing.assert_close(term, expected)


def test_both_networks_learn_the_peer_by_its_own_optimizer():
    network, fields, method = make()
    assert "peer.0.weight" in method.state_dict()
    assert not any("network" in key for key in method.state_dict())
    mine = {id(p) for p in network.parameters()}
    assert not any(id(p) in mine for g in method.make_optimizer().param_groups for p in g["params"])
    method(fields, 1.0).backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in (*network.parameters(), *method.peer.parameters())
    )
    _, _, other = make()
    other.load_state_dict(method.state_dict())
    other._network = method._network
    assert other(fields, 0.5) == method(fields, 0.5)


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seed", SEEDS)
def test_follows_a_rotation(adapt, batches, moons, perceptron, accuracy, seed):
    source, target, test = batches(*moons(200, 0, 1)), batches(moons(200, 30, 2)[0]), moons(400, 30, 3)
    before = accuracy(adapt(None, perceptron(seed=seed), source, None, epochs=10, seed=seed), *test)
    method = CoTraining(eps=0.15, lr=3e-3)
    after = accuracy(adapt(method, perceptron(seed=seed), source, target, epochs=8, seed=seed), *test)
    assert before < 0.9
    assert after > 0.97
