import numpy as np
import pytest
import torch
from monai.networks.nets import UNet
from scipy.special import expit
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields
from monai_transfer.methods.dann import Dann, dann_lambda


def make_fields(spatial=(), n=5, m=4, width=3, **more):
    return Fields(
        source_features=torch.randn(n, width, *spatial, requires_grad=True),
        target_features=torch.randn(m, width, *spatial, requires_grad=True),
        **more,
    )


def ready(fields, **options):
    method = Dann(hidden=8, **options)
    method.setup(nn.Identity(), fields)
    return method


@pytest.mark.parametrize("spatial", [(), (4, 3), (2, 3, 4)])
def test_term_written_out(spatial):
    fields = make_fields(spatial)
    method = ready(fields)
    layers = [(m.weight.detach().flatten(1).double().numpy(), m.bias.detach().double().numpy())
              for m in method.discriminator if hasattr(m, "weight")]  # fmt: skip

    def judged(x):
        x = np.moveaxis(x.detach().double().numpy().reshape(len(x), 3, -1), 1, 2)  # each place by itself
        for i, (w, b) in enumerate(layers):
            x = x @ w.T + b
            x = np.maximum(x, 0) if i < 2 else x
        return expit(x)

    expected = -0.5 * np.log(1 - judged(fields.source_features)).mean()
    expected -= 0.5 * np.log(judged(fields.target_features)).mean()
    assert method(fields, 0.3).item() == pytest.approx(expected, rel=1e-5)


def test_the_network_gets_the_reversed_gradient_and_the_discriminator_its_own():
    fields = make_fields()
    method = ready(fields)
    gradients = {}
    for progress in (0.0, 0.1, 1.0):
        for tensor in (*method.parameters(), *fields.values()):
            tensor.grad = None
        method(fields, progress).backward()
        own = torch.cat([p.grad.flatten() for p in method.parameters()])
        gradients[progress] = (own, fields.target_features.grad.clone())
    plain = fields.target_features.detach().requires_grad_()
    (towards,) = torch.autograd.grad(0.5 * nn.functional.softplus(-method.discriminator(plain)).mean(), plain)
    for progress, (own, features) in gradients.items():
        torch.testing.assert_close(own, gradients[0.0][0])  # lambda does not reach the discriminator
        torch.testing.assert_close(features, -dann_lambda(progress) * towards)


def test_dense_is_asked_of_adapt_and_domains_in_turn_of_the_loader():
    assert Dann().default_pool == "mean"
    assert Dann(dense=True).default_pool is None
    assert "target_order" not in Dann().needs
    assert "target_order" in Dann(stages=3).needs
    with pytest.raises(InputError, match="stage"):
        Dann(stages=0)
    fields = make_fields()
    with pytest.raises(InputError, match="with_order"):
        ready(fields, stages=2)(fields, 0.0)


def test_a_far_domain_waits_for_its_turn():
    order = torch.tensor([0.0, 1.0, 0.0, 1.0])
    fields = make_fields(target_order=order)
    method = ready(fields, stages=2)
    term = method(fields, 0.4)
    term.backward()
    assert fields.target_features.grad[order == 1].abs().max() == 0
    assert fields.target_features.grad[order == 0].abs().min() > 0
    near = Fields(source_features=fields.source_features, target_features=fields.target_features[order == 0])
    one = Dann(hidden=8)
    one.setup(nn.Identity(), near)
    one.load_state_dict(method.state_dict())
    assert term.item() == pytest.approx(one(near, 0.4).item())
    fields.target_features.grad = None
    method(fields, 0.9).backward()
    assert fields.target_features.grad[order == 1].abs().min() > 0
    alone = make_fields(target_order=torch.ones(4))
    assert torch.isfinite(method(alone, 0.0))  # nobody of the batch plays yet


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seed", SEEDS)
def test_undoes_a_shift(adapt, batches, clouds, perceptron, accuracy, seed):
    source, target, test = batches(*clouds(300, 0.0, 1)), batches(clouds(300, 2.5, 2)[0]), clouds(400, 2.5, 3)
    assert accuracy(adapt(None, perceptron(seed=seed), source, None, seed=seed), *test) < 0.8
    assert accuracy(adapt(Dann(), perceptron(seed=seed), source, target, seed=seed), *test) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_domains_in_turn_reach_the_far_one(adapt, batches, clouds, perceptron, accuracy, seed):
    """Two target sites, the second twice as far: each enters in its turn, and both are served at the end."""
    near, far = clouds(200, 1.5, 2), clouds(200, 3.0, 3)
    images, order = torch.cat([near[0], far[0]]), torch.cat([torch.zeros(200), torch.ones(200)])
    source, target = batches(*clouds(300, 0.0, 1)), batches(images, order=order)
    network = adapt(None, perceptron(seed=seed), source, None, seed=seed)
    assert accuracy(network, *far) < 0.75
    network = adapt(Dann(stages=2), network, source, target, seed=seed)
    assert accuracy(network, *near) > 0.95
    assert accuracy(network, *far) > 0.95


@pytest.mark.slow
def test_dense_game_in_a_segmentation(adapt, batches):
    """A segmentation network whose target is darker by an offset: the feature maps are brought together."""

    def scans(n, offset, seed):
        g = torch.Generator().manual_seed(seed)
        masks = torch.zeros(n, 1, 12, 12)
        for mask, (y, x) in zip(masks, torch.randint(1, 7, (n, 2), generator=g), strict=True):
            mask[0, y : y + 4, x : x + 4] = 1
        return masks - offset + 0.1 * torch.randn(masks.shape, generator=g), masks

    source, target, test = scans(64, 0.0, 1), scans(64, 0.8, 2), scans(64, 0.8, 3)
    loss = lambda pred, label: nn.functional.cross_entropy(pred, label[:, 0].long())  # noqa: E731

    def run(method):
        torch.manual_seed(0)
        network = UNet(2, 1, 2, (8, 16), (2,), norm=None)
        loaders = batches(*source, size=16, length=40), batches(target[0], size=16)
        network = adapt(method, network, *loaders, epochs=5, loss=loss)
        with torch.no_grad():
            predicted = network(test[0]).argmax(1, keepdim=True)
        return (2 * (predicted * test[1]).sum() / (predicted.sum() + test[1].sum())).item()

    before, after = run(None), run(Dann(dense=True))
    assert before < 0.6
    assert after > before + 0.2
