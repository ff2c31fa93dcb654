import pytest
import torch
from torch import nn

from monai_transfer.networks.adversarial import discriminator_accuracy, frozen_call, reverse_gradient
from monai_transfer.networks.copying import copy_network, peer_network
from monai_transfer.networks.outputs import entropy, label_indices, probabilities
from monai_transfer.networks.schedules import dann_lambda, domain_lambda, sigmoid_ramp


def test_entropy_of_one_channel_is_that_of_two():
    logits = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    torch.testing.assert_close(entropy(logits), entropy(two))
    torch.testing.assert_close(probabilities(logits), two.softmax(1))
    uniform = torch.zeros(2, 5)
    torch.testing.assert_close(entropy(uniform), torch.full((2,), 5.0).log())


@pytest.mark.parametrize("extreme", [1e4, 6e4])
def test_half_precision_extremes_stay_finite(extreme):
    logits = torch.tensor([[extreme, -extreme]], dtype=torch.float16).requires_grad_()
    value = entropy(logits).sum()
    value.backward()
    assert value == 0
    assert torch.isfinite(logits.grad).all()


def test_label_forms():
    logits = torch.zeros(2, 3, 4, 4)
    indices = torch.randint(0, 3, (2, 4, 4))
    one_hot = nn.functional.one_hot(indices, 3).permute(0, 3, 1, 2)
    for form in (indices, indices[:, None].float(), one_hot):
        torch.testing.assert_close(label_indices(form, logits), indices)
    with pytest.raises(ValueError, match="does not fit"):
        label_indices(torch.zeros(2), logits)


class Observer:
    def __init__(self, module):
        self.seen = []
        self.owner = (item for item in ())  # a generator: cannot be deep-copied
        module.register_forward_pre_hook(self.look)
        module.register_forward_hook(self.look)

    def look(self, *arguments):
        self.seen.append(arguments)


def test_copy_leaves_observers_behind_and_keeps_the_networks_own_hooks():
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    network[0].register_forward_pre_hook(lambda _module, inputs: (2 * inputs[0],))
    observer = Observer(network[1])
    twin = copy_network(network)
    x = torch.randn(4, 3)
    torch.testing.assert_close(twin(x), network.eval()(x))
    assert len(observer.seen) == 2  # the original's, before and after; nothing from the copy
    assert not twin.training
    assert not any(p.requires_grad for p in twin.parameters())
    assert all(p.requires_grad for p in network.parameters())
    assert all(p.requires_grad for p in copy_network(network, frozen=False).parameters())


def test_frozen_call_reaches_inputs_alone():
    module, x = nn.Linear(3, 1), torch.randn(2, 3, requires_grad=True)
    frozen_call(module, x).sum().backward()
    assert module.weight.grad is None
    torch.testing.assert_close(x.grad, module.weight.detach().expand(2, 3))
    y = torch.randn(2, requires_grad=True)
    reverse_gradient(y, 0.3).sum().backward()
    torch.testing.assert_close(y.grad, torch.full((2,), -0.3))


def test_discriminator_accuracy_is_balanced():
    assert discriminator_accuracy(torch.full((9, 1), -1.0), torch.full((1, 1), -1.0)) == 0.5


def test_schedules():
    assert [round(dann_lambda(p), 4) for p in (0, 0.1, 0.5, 1.0)] == [0, 0.4621, 0.9866, 0.9999]
    assert sigmoid_ramp(0.0) == pytest.approx(0.006738, abs=1e-6)
    assert sigmoid_ramp(0.5, 0.5) == sigmoid_ramp(1.0) == sigmoid_ramp(0.3, 0) == 1.0


@pytest.mark.parametrize("start", ["head", "all"])
def test_a_peer_differs_where_it_is_drawn_anew_and_learns(start):
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    kept = {k: v.clone() for k, v in network.state_dict().items()}
    network(torch.randn(5, 3)).sum().backward()
    peer = peer_network(network, start)
    changed = {k for k, v in peer.state_dict().items() if not torch.equal(v, network.state_dict()[k])}
    assert {"3.weight", "3.bias"} <= changed
    assert ("0.weight" in changed) == (start == "all")
    assert all(p.requires_grad and p.grad is None for p in peer.parameters())
    assert all(
        torch.equal(v, kept[k]) for k, v in network.state_dict().items() if "running" not in k and "num" not in k
    )
    with pytest.raises(ValueError, match="start"):
        peer_network(network, "encoder")


def test_each_domain_enters_the_game_in_its_turn():
    order = torch.tensor([0.0, 0.4, 0.5, 1.0])
    for progress in (0.0, 0.3, 0.6, 1.0):
        strength, entered = domain_lambda(progress, order, 2)
        starts = [0.0, 0.0, 0.5, 0.5]
        assert entered.tolist() == [progress >= start for start in starts]
        expected = [dann_lambda(max(progress - start, 0) / (1 - start)) for start in starts]
        assert strength.tolist() == pytest.approx(expected, abs=1e-6)
    strength, entered = domain_lambda(0.3, order, 1)  # one stage: the usual schedule for everyone
    assert strength.tolist() == pytest.approx([dann_lambda(0.3)] * 4)
    assert entered.all()


def test_gradients_come_back_reversed_case_by_case():
    x = torch.randn(3, 2, 4, requires_grad=True)
    reverse_gradient(x, torch.tensor([0.0, 0.5, 1.0])).sum().backward()
    assert x.grad[:, 0, 0].tolist() == [0.0, -0.5, -1.0]
