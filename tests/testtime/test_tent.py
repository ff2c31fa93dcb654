import copy
import logging

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet, resnet10
from torch import nn

from monai_transfer.errors import InputError
from monai_transfer.testtime.tent import Tent

NORMS = {
    "batch": lambda d: {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[d](4),
    "group": lambda d: nn.GroupNorm(2, 4),
    "instance": lambda d: {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[d](4, affine=True),
}


def small(norm, dims):
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    return nn.Sequential(conv(1, 4, 3, padding=1), NORMS[norm](dims), nn.ReLU(), nn.Dropout(0.5), conv(4, 3, 1))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("norm", NORMS)
def test_one_step_is_adam_on_the_mean_entropy_of_affine_parameters(norm, dims):
    network = small(norm, dims)
    x = torch.randn(2, 1, *[6] * dims)
    kept = copy.deepcopy(network.state_dict())
    wrapped = Tent(lr=1e-2).wrap(network)
    # by hand: batch statistics, dropout off, everything else fixed
    twin = copy.deepcopy(network)
    twin[1].train()
    twin[3].eval()
    parameters = [twin[1].weight, twin[1].bias]
    p = twin(x).softmax(1)
    grads = torch.autograd.grad(-(p * p.log()).sum(1).mean(), parameters)
    with torch.no_grad():
        first = wrapped.eval()(x)
    torch.testing.assert_close(first, twin(x).detach(), rtol=1e-4, atol=1e-5)  # pre-update outputs
    assert not first.requires_grad
    for mine, start, gradient in zip(
        (wrapped.network[1].weight, wrapped.network[1].bias), parameters, grads, strict=True
    ):
        expected = start.detach() - 1e-2 * gradient / (gradient.abs() + 1e-8)  # the first step of Adam
        torch.testing.assert_close(mine.detach(), expected, rtol=1e-3, atol=1e-4)
    for key, value in wrapped.network.state_dict().items():
        if not key.startswith("1."):
            torch.testing.assert_close(value, kept[key], rtol=0, atol=0)
    for key, value in network.state_dict().items():  # the network given is untouched
        torch.testing.assert_close(value, kept[key], rtol=0, atol=0)


def test_a_3d_resnet_adapts():
    network = resnet10(spatial_dims=3, n_input_channels=1, num_classes=2)
    wrapped = Tent().wrap(network)
    before = [p.clone() for p in wrapped._parameters_to_adapt]
    assert len(before) > 10
    with torch.no_grad():
        wrapped(torch.randn(4, 1, 16, 16, 16))
    assert all((a != b).any() for a, b in zip(before, wrapped._parameters_to_adapt, strict=True))


@pytest.mark.parametrize("norm", ["instance", None])
def test_refuses_with_the_reason(norm):
    with pytest.raises(InputError, match="no affine norm parameters"):
        Tent().wrap(UNet(3, 1, 2, (4, 8), (2,), norm=norm))


def test_reset_and_episodic_and_inference_mode():
    network, x = small("batch", 2), torch.randn(4, 1, 6, 6)
    wrapped, episodic = Tent(lr=0.1).wrap(network), Tent(lr=0.1, episodic=True).wrap(network)
    first = wrapped(x)
    assert not torch.allclose(wrapped(x), first)
    wrapped.reset()
    torch.testing.assert_close(wrapped(x), first)
    with torch.inference_mode():
        torch.testing.assert_close(episodic(x), first)
        torch.testing.assert_close(episodic(torch.randn(4, 1, 6, 6) * 0 + x), first)
    assert wrapped.train().training is False


def test_an_evaluator_resets_it_for_each_patient_and_windows_share():
    network = small("batch", 2)
    wrapped = Tent(lr=0.1).wrap(network)
    wrapped.eval()
    case = torch.randn(1, 1, 16, 16)
    outputs = []
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[{"image": case, "label": case}] * 2,
        network=wrapped,
        inferer=SlidingWindowInferer(8, 1),
        decollate=False,
    )
    wrapped.attach(evaluator)
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda e: outputs.append(e.state.output["pred"].clone()))
    evaluator.run()
    torch.testing.assert_close(outputs[0], outputs[1])  # the second "patient" starts where the first did
    alone = Tent(lr=0.1).wrap(network)
    assert not torch.allclose(outputs[0][..., 8:, 8:], alone(case[..., 8:, 8:]))  # later windows had adapted


def stream_accuracy(network, x, y):
    """Of the second half of a stream of batches."""
    answers = torch.cat([network(part).argmax(1) for part in x.split(64)])
    return (answers == y)[len(y) // 2 :].float().mean().item()


def test_batch_statistics_undo_a_shift_and_entropy_does_where_there_are_none(clouds, trained):
    x, y = clouds(640, 2.0, 3)
    for norm, lr in ((lambda: nn.BatchNorm1d(32), 1e-3), (lambda: nn.GroupNorm(4, 32), 1e-2)):
        network = trained(norm)
        assert stream_accuracy(network, x, y) < 0.92
        assert stream_accuracy(Tent(lr=lr, steps=5).wrap(network), x, y) > 0.98


def test_a_broken_image_teaches_nothing(trained, clouds):
    wrapped, x = Tent().wrap(trained(lambda: nn.LayerNorm(32))), clouds(8, 0.0, 1)[0]
    before = wrapped(x), copy.deepcopy(wrapped.network.state_dict())
    broken = x.clone()
    broken[0, 0] = float("nan")
    assert wrapped(broken)[0].isnan().all()
    for key, value in wrapped.network.state_dict().items():
        assert torch.equal(value, before[1][key]), key
    assert torch.isfinite(wrapped(x)).all()


def test_its_cost_per_batch_is_in_the_log(caplog):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    wrapped = Tent().wrap(network)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=[{"image": torch.randn(4, 1, 8, 8)}] * 2, network=wrapped,
        decollate=False,
    )  # fmt: skip
    wrapped.attach(evaluator)
    with caplog.at_level(logging.INFO):
        evaluator.run()
    said = [r.message for r in caplog.records if "predicted and adapted in" in r.message]
    assert len(said) == 2
    assert said[0].endswith("(1 calls with a backward pass each)")
