"""L2-SP: the formula, which parameters count, and w0 through a resume."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.networks.nets import DenseNet, UNet
from torch import nn

from monai_transfer.engine.adapt import Adapt
from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields
from monai_transfer.methods.l2_sp import L2Sp, l2_sp_penalty


def test_formula():
    w, w0, new = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]]), torch.tensor([[3.0]])
    assert l2_sp_penalty([w], [w0], [new], alpha=0.1, beta=0.01).item() == pytest.approx(0.05 * 5 + 0.005 * 9)
    assert l2_sp_penalty([w], [w]).item() == 0
    w.requires_grad_(True)
    (gradient,) = torch.autograd.grad(l2_sp_penalty([w], [w0]), w)
    torch.testing.assert_close(gradient, 0.1 * (w - w0))
    with pytest.raises(ValueError, match="started as"):
        l2_sp_penalty([w], [w0.T])
    with pytest.raises(ValueError):
        l2_sp_penalty([w], [])
    with pytest.raises(ValueError, match="no weights"):
        l2_sp_penalty([], [])


def test_precision_is_that_of_the_weights_or_better():
    w, w0, new = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(lambda *x: l2_sp_penalty([x[0]], [x[1]], [x[2]]), (w, w0.detach(), new))
    small = torch.full((100, 100), 1e-3, dtype=torch.bfloat16)
    penalty = l2_sp_penalty([small], [0 * small])
    assert penalty.dtype is torch.float32 and penalty.item() == pytest.approx(0.05 * 1e4 * small[0, 0].item() ** 2)


def test_weights_only_and_the_head_apart():
    network = DenseNet(2, 1, 2, init_features=4, growth_rate=2, block_config=(1,))
    method = L2Sp()
    method.setup(network, Fields())
    kept = {name for name, _ in method.start.items()}
    assert kept == {n for n, p in network.named_parameters() if p.ndim > 1} - {"class_layers.out.weight"}
    head = network.class_layers.out.weight
    assert method(Fields(), 0.0).item() == pytest.approx(0.005 * head.square().sum().item(), rel=1e-5)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:  # biases and affine norm parameters are free
                parameter.add_(1)
    assert method(Fields(), 0.0).item() == pytest.approx(0.005 * head.square().sum().item(), rel=1e-5)
    with torch.no_grad():
        network.features.conv0.weight.add_(1)
    moved = network.features.conv0.weight.numel()
    assert method(Fields(), 0.0).item() == pytest.approx(0.005 * head.square().sum().item() + 0.05 * moved, rel=1e-5)
    assert method.log()["distance_from_start"].item() == pytest.approx(moved**0.5, rel=1e-5)


def test_names_and_frozen_parameters():
    network = UNet(2, 1, 2, (4, 8), (2,))
    everything = L2Sp(new=[])
    everything.setup(network, Fields())
    assert len(list(everything.start.items())) == sum(p.ndim > 1 for p in network.parameters())
    with pytest.raises(InputError, match="no module 'classifier'"):
        L2Sp(new="classifier").setup(network, Fields())
    with pytest.raises(InputError):
        L2Sp(alpha=-1)
    network.requires_grad_(False)
    assert everything(Fields(), 0.0).item() == 0, "what does not learn pulls nothing"
    network.model[0].requires_grad_(True)
    assert everything(Fields(), 0.0).requires_grad


def trainer(network, method, epochs):
    torch.manual_seed(1)
    batches = [{"image": torch.randn(4, 3), "label": torch.randint(0, 2, (4,))} for _ in range(3)]
    adapt = Adapt(method)
    engine = SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=epochs, train_data_loader=batches, network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.5), loss_function=nn.CrossEntropyLoss(),
        train_handlers=[adapt],
    )  # fmt: skip
    return engine, adapt


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def test_pulls_back_and_resumes_with_its_own_start():
    start = perceptron()[0].weight.detach()

    def distance(method):
        network = perceptron()
        engine, _ = trainer(network, method, 8)
        engine.run()
        return (network[0].weight - start).norm().item(), network

    free, _ = distance(L2Sp(alpha=0, beta=0))
    held, whole = distance(L2Sp(alpha=1.0))
    assert held < 0.6 * free

    first = perceptron()
    engine, adapt = trainer(first, L2Sp(alpha=1.0), 4)
    engine.run()
    state = copy.deepcopy(adapt.state_dict())
    engine, adapt = trainer(copy.deepcopy(first), L2Sp(alpha=1.0), 4)
    adapt.load_state_dict(state)
    second = engine.network
    engine.run()
    torch.testing.assert_close(dict(adapt.method.start.items())["0.weight"], start, rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(second.parameters(), whole.parameters(), strict=True))
