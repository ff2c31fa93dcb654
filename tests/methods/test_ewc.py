"""EWC: the Fisher information of a known model, what it protects, and that the network is left alone."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields
from monai_transfer.methods.ewc import Ewc, ewc_penalty, fisher_information


def test_formula():
    w, w0, f = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]), torch.tensor([3.0, 0.5])
    assert ewc_penalty([w], [w0], [f], strength=10).item() == pytest.approx(5 * (3 * 1 + 0.5 * 4))
    assert ewc_penalty([w], [w], [f]).item() == 0
    with pytest.raises(ValueError):
        ewc_penalty([w], [w0], [])


def test_precision_is_that_of_the_weights_or_better():
    w, w0 = torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ewc_penalty([x], [w0], [w0.square()]), w)
    assert ewc_penalty([w.bfloat16()], [w0.bfloat16()], [w0.bfloat16()]).dtype is torch.float32


def test_fisher_of_logistic_regression():
    """For one logit z = w x + b, the Fisher information is p (1 - p) x^2 in w and p (1 - p) in b."""
    torch.manual_seed(0)
    network = nn.Linear(1, 1)
    x = torch.linspace(-2, 2, 9).repeat(400).unsqueeze(1)
    p = torch.sigmoid(network(x)).detach()
    found = fisher_information(network, x)
    torch.testing.assert_close(found["weight"], (p * (1 - p) * x**2).mean().view(1, 1), rtol=0.1, atol=0)
    torch.testing.assert_close(found["bias"], (p * (1 - p)).mean().view(1), rtol=0.1, atol=0)


def test_of_a_segmentation_all_voxels_are_one_answer_and_their_number_divides():
    """For one logit w x at each of V voxels: the sum over voxels of p (1 - p) x^2, divided by V; not by V once more."""
    network = nn.Conv2d(1, 1, 1, bias=False)
    x = torch.randn(1, 1, 6, 6).expand(600, -1, -1, -1)
    p = torch.sigmoid(network(x)).detach()
    found = fisher_information(network, x)["weight"].item()
    assert found == pytest.approx((p * (1 - p) * x**2).mean().item(), rel=0.15)


def test_network_is_left_as_it_was():
    network = UNet(2, 1, 2, (4, 8), (2,), norm="batch", dropout=0.5).train()
    network.model[0].eval()
    network.model[0].requires_grad_(False)
    state, modes = copy.deepcopy(network.state_dict()), [m.training for m in network.modules()]
    loader = [{"image": torch.randn(2, 1, 8, 8)}, {"image": torch.randn(1, 1, 8, 8)}]
    found = fisher_information(network, loader)
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    assert modes == [m.training for m in network.modules()]
    assert not network.model[0].conv.weight.requires_grad and all(p.grad is None for p in network.parameters())
    assert set(found) == {n for n, _ in network.named_parameters()}, "what is frozen for now may learn later"
    assert found["model.0.conv.weight"].max() > 0
    with pytest.raises(InputError, match="not a single|no case"):
        fisher_information(network, [])


def test_file_and_new_head(tmp_path):
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    path = tmp_path / "fisher.pt"
    source = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 7))
    torch.save(fisher_information(source, torch.randn(8, 3)), path)
    method = Ewc(fisher=path)
    method.setup(network, Fields(source_image=torch.randn(2, 3)))
    assert {n for n, _ in method.start.items()} == {"0.weight", "0.bias"}, "the new head is free"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="fisher.pt: is no file of tensors"):
        Ewc(fisher=path).setup(network, Fields())
    with pytest.raises(InputError, match="names no parameter"):
        Ewc(fisher={"other": torch.ones(1)}).setup(network, Fields())
    with pytest.raises(InputError):
        Ewc(strength=-1)


def test_holds_what_matters_and_lets_the_rest_go(adapt, clouds, batches, perceptron, accuracy):
    """Task A looks at one coordinate, task B at another: with EWC task A survives learning task B."""
    xa, ya = clouds(300, 0.0, 0)
    xb, yb = clouds(300, 0.0, 1)
    xa, xb = torch.cat([xa, torch.zeros(300, 2)], 1), torch.cat([torch.zeros(300, 2), xb], 1)
    start = adapt(None, perceptron(inputs=4), batches(xa, ya, length=20), None, epochs=3)
    fisher = fisher_information(start, xa)
    kept = {}
    for name, method in (("plain", None), ("ewc", Ewc(strength=3e3, fisher=fisher))):
        network = adapt(method, copy.deepcopy(start), batches(xb, 1 - yb, length=20), None, epochs=4, lr=1e-2)
        kept[name] = (accuracy(network, xa, ya), accuracy(network, xb, 1 - yb))
    assert kept["ewc"][1] > 0.9, kept
    assert kept["ewc"][0] > 0.9 and kept["ewc"][0] >= kept["plain"][0], kept


def test_without_fisher_it_estimates_and_its_state_resumes(adapt, clouds, batches, perceptron):
    x, y = clouds(100, 0.0, 0)
    method = Ewc()
    start = perceptron()
    adapt(method, copy.deepcopy(start), batches(x, y, length=5), None, epochs=1)
    state = method.state_dict()
    assert torch.equal(state["start.0/weight"], start[0].weight) and state["fisher.0/weight"].max() > 0
    other = Ewc()
    other.setup(perceptron(seed=5), Fields(source_image=x[:4]))
    other.load_state_dict(state)
    assert torch.equal(dict(other.start.items())["0.weight"], start[0].weight)
