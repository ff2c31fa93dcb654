import math

import pytest
import torch
from monai.engines import SupervisedTrainer
from sklearn.datasets import make_moons
from torch import nn

from monai_transfer.engine.adapt import Adapt
from monai_transfer.engine.checkpoint import Checkpoint
from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields
from monai_transfer.methods.self_training import SelfTraining


def test_the_term_written_out():
    """Two voxels of each class; the surer of each teaches, whatever the other class's certainty."""
    image = torch.tensor([[[4.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.5]]])
    strong = torch.randn(1, 2, 4, requires_grad=True)
    method = SelfTraining(weight=2.0, ramp=0.5)
    method.setup(nn.Identity(), Fields(target_strong_logits=strong))
    term = method(Fields(target_image=image, target_strong_logits=strong), 0.25)
    logs = strong.detach().log_softmax(1)
    expected = 2.0 * math.exp(-1.25) * -(logs[0, 0, 0] + logs[0, 1, 2]) / 2
    assert term.item() == pytest.approx(expected.item())
    term.backward()
    assert strong.grad[0, :, [1, 3]].abs().sum() == 0 and strong.grad[0, :, [0, 2]].abs().min() > 0


def test_statistics_are_those_of_plain_target_images():
    """Neither the source's nor the strong view's, in the teacher and in the student."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2))
    network[0].running_mean.fill_(-100.0)
    method = SelfTraining()
    target = torch.randn(64, 1) * 2 + 7
    network.train()
    for step in range(12):
        strong = network(target - 50)
        fields = Fields(target_image=target, target_strong_logits=strong)
        if not step:
            method.setup(network, fields)
        method(fields, step / 12)
        method.after_step(network, step / 12)
    for norm in (network[0], method.teacher[0]):
        torch.testing.assert_close(norm.running_mean, target.mean(0))
        torch.testing.assert_close(norm.running_var, target.var(0))
    assert not any(module.training for module in method.teacher.modules())


@pytest.mark.parametrize("statistics", ["kept", "both", "target"])
def test_whose_statistics_serve_is_for_adapt_to_say(statistics):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2))
    network[1].running_mean.fill_(3.0)
    batches = [{"image": torch.randn(8, 1, 2, 2), "label": torch.tensor([0, 1] * 4)} for _ in range(3)]
    target = [{"image": b["image"] + 10, "strong": b["image"] + 50} for b in batches]
    method = SelfTraining()
    trainer = SupervisedTrainer(
        device="cpu", max_epochs=20, train_data_loader=batches, network=network, decollate=False,
        optimizer=torch.optim.SGD(network.parameters(), 0.01), loss_function=nn.CrossEntropyLoss(),
        train_handlers=[Adapt(method, target, statistics=statistics)],
    )  # fmt: skip
    trainer.run()
    means = {"kept": (3.0, 3.0), "both": (15.0, 40.0), "target": (9.0, 11.0)}[statistics]
    for mean in (network[1].running_mean, method.teacher[1].running_mean):
        assert all(means[0] <= value <= means[1] for value in mean.tolist()), mean
    assert network[1].momentum == 0.1, "left as it was"


@pytest.mark.parametrize("wrong", [{"keep": "both"}, {"portion": 0.0}, {"portion": 1.5}])
def test_refused(wrong):
    with pytest.raises(InputError):
        SelfTraining(**wrong)


@pytest.mark.parametrize("keep", ["teacher", "student"])
def test_both_networks_are_kept(tmp_path, keep):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    batches = [{"image": torch.randn(6, 1, 4, 4), "label": torch.tensor([0, 1] * 3)} for _ in range(3)]
    method = SelfTraining(decay=0.9, keep=keep)
    trainer = SupervisedTrainer(
        device="cpu", max_epochs=2, train_data_loader=batches, network=network, decollate=False,
        optimizer=torch.optim.SGD(network.parameters(), 0.1), loss_function=nn.CrossEntropyLoss(),
        train_handlers=[Checkpoint(tmp_path), Adapt(method, [{"image": b["image"] + 1} for b in batches])],
    )  # fmt: skip
    trainer.run()
    model = torch.load(tmp_path / "models/model.pt", weights_only=True)
    student = tmp_path / "models/student.pt"
    assert student.is_file() == (keep == "teacher")
    if keep == "teacher":
        own = torch.load(student, weights_only=True)
        assert (model["1.weight"] - own["1.weight"]).abs().max() > 1e-4
        torch.testing.assert_close(model["1.weight"], method.teacher.state_dict()["1.weight"])
        torch.testing.assert_close(own["2.running_mean"], model["2.running_mean"])
        assert (tmp_path / "models/student.pt.sha256").is_file()


@pytest.mark.slow
def test_follows_a_rotation_without_labels():
    """Two interleaved half circles, turned by 40 degrees: better than the same steps without the term."""

    def moons(n, degrees, seed):
        x, y = make_moons(n, noise=0.05, random_state=seed)
        a = math.radians(degrees)
        turn = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
        return torch.tensor(x - [0.5, 0.25], dtype=torch.float32) @ turn.T, torch.tensor(y)

    scores = []
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
        (xs, ys), (xt, _) = moons(200, 0, 1), moons(200, 40, 2)
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        method = SelfTraining(weight=weight, portion=0.8)
        for step in range(500):
            logits = network(xt + 0.15 * torch.randn_like(xt))
            fields = Fields(target_image=xt, target_strong_logits=logits)
            if not step:
                method.setup(network, fields)
            loss = nn.functional.cross_entropy(network(xs), ys) + method(fields, step / 500)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            method.after_step(network, step / 500)
        xe, ye = moons(400, 40, 3)
        scores.append((method.teacher(xe).argmax(1) == ye).float().mean().item())
    assert scores[1] > scores[0] + 0.05
