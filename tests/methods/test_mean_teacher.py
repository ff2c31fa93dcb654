import math

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet
from sklearn.datasets import make_moons
from torch import nn

from monai_transfer.engine.adapt import Adapt
from monai_transfer.engine.checkpoint import Checkpoint
from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields
from monai_transfer.methods.mean_teacher import MeanTeacher, consistency_loss, ema_update


def test_consistency_written_out():
    a, b = torch.randn(2, 3, 2, dtype=torch.float64), torch.randn(2, 3, 2, dtype=torch.float64)
    total = 0.0
    for n in range(2):
        for v in range(2):
            za, zb = (sum(math.exp(x[n, c, v]) for c in range(3)) for x in (a, b))
            total += sum((math.exp(a[n, c, v]) / za - math.exp(b[n, c, v]) / zb) ** 2 for c in range(3))
    assert consistency_loss(a, b).item() == pytest.approx(total / 12)
    assert consistency_loss(a, a).item() == 0


def test_only_sure_answers_teach():
    student = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    teacher = torch.tensor([[0.0, 0.5], [4.0, 0.0], [0.0, 6.0]])
    p, q = student.softmax(1), teacher.softmax(1)  # surest answers: .62, .982, .998
    squares = (p - q).square().mean(1)
    assert consistency_loss(student, teacher, 0.968).item() == pytest.approx((squares[1] + squares[2]).item() / 3)
    assert consistency_loss(student, teacher, 0.99).item() == pytest.approx(squares[2].item() / 3)
    method = MeanTeacher()
    fields = Fields(target_image=teacher, target_strong_logits=student)
    method.setup(nn.Identity(), fields)
    assert method(fields, 0.0).item() == pytest.approx(
        3 * 2 * (squares[1] + squares[2]).item() / 3
    )  # 3 of the sum of two
    assert method.log()["selected"].item() == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="a share below 1"):
        MeanTeacher(threshold=1.0)


@pytest.mark.parametrize(
    ("logits", "exclusive", "expected"),
    [
        (torch.zeros(2, 3), True, (0.99, 9.0, 0.0, 0.8)),  # one class per image, of three
        (torch.zeros(2, 3), False, (0.999, 1.0, 0.3, 0.0)),  # findings
        (torch.zeros(2, 3, 4, 4), True, (0.999, 1.0, 0.3, 0.0)),  # masks
    ],
)
def test_defaults_by_what_the_outputs_are(logits, exclusive, expected):
    method, given = MeanTeacher(), MeanTeacher(decay=0.5, weight=2.0, ramp=0.1, threshold=0.6)
    for each in (method, given):
        each.exclusive = exclusive
        each.setup(nn.Identity(), Fields(target_strong_logits=logits))
    assert (method.decay, method.weight, method.ramp, method.threshold) == expected
    assert (given.decay, given.weight, given.ramp, given.threshold) == (0.5, 2.0, 0.1, 0.6)


def test_moving_average_over_steps():
    student = nn.Linear(2, 1)
    method = MeanTeacher(decay=0.6)
    method.setup(student, Fields())
    history = []
    for step in range(1, 6):
        with torch.no_grad():
            student.weight.fill_(float(step))
        method.after_step(student, 0.0)
        history.append(method.teacher.weight[0, 0].item())
    expected, value = [], 0.0
    for step in range(1, 6):
        a = min(0.6, 1 - 1 / step)
        value = a * value + (1 - a) * step
        expected.append(value)
    assert history == pytest.approx(expected)
    assert history[0] == 1.0  # the first step makes the teacher the student


def test_every_buffer_is_copied_in_a_monai_network():
    network = UNet(2, 1, 2, (4, 8), (2,), norm="batch")  # its norm layers are called "N"
    method = MeanTeacher()
    method.setup(network, Fields())
    network.train()
    network(torch.randn(4, 1, 8, 8) + 3)
    method.after_step(network, 0.0)
    names = [name for name, _ in network.named_buffers()]
    assert any(name.endswith("N.running_mean") for name in names)
    for (name, ours), (_, theirs) in zip(method.teacher.named_buffers(), network.named_buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
    assert all(ours.data_ptr() != theirs.data_ptr() for ours, theirs in
               zip(method.teacher.buffers(), network.buffers(), strict=True))  # fmt: skip


def test_the_teacher_gets_no_gradient_and_stays_in_eval():
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Dropout(0.5))
    method = MeanTeacher()
    method.setup(network, Fields())
    method.train()
    network.train()
    image = torch.randn(2, 1, 6, 6)
    logits = network(image)
    logits.retain_grad()
    before = {k: v.clone() for k, v in method.teacher.state_dict().items()}
    method(Fields(target_image=image, target_strong_logits=logits), 0.5).backward()
    assert logits.grad.abs().sum() > 0
    assert all(p.grad is None for p in method.teacher.parameters())
    assert method.make_optimizer() is None
    assert not any(m.training for m in method.teacher.modules())
    for key, value in method.teacher.state_dict().items():
        torch.testing.assert_close(value, before[key])


def test_ramp_and_resume():
    network = nn.Linear(3, 2)
    fields = Fields(target_image=torch.randn(4, 3), target_strong_logits=torch.randn(4, 2))
    method, other = (MeanTeacher(weight=2.0, ramp=0.5, threshold=0.0) for _ in range(2))
    method.setup(network, fields)
    full = method(fields, 0.5)
    assert (method(fields, 0.0) / full).item() == pytest.approx(math.exp(-5))
    assert (method(fields, 0.25) / full).item() == pytest.approx(math.exp(-1.25))
    assert method(fields, 1.0) == full
    for _ in range(3):
        with torch.no_grad():
            network.weight += torch.randn(2, 3)
        method.after_step(network, 0.5)
    other.setup(network, fields)
    other.load_state_dict(method.state_dict())
    assert int(other.step) == 3
    assert other(fields, 0.3) == method(fields, 0.3)


def test_mixed_precision_students_are_averaged_in_the_teachers_type():
    teacher, student = nn.Linear(2, 2), nn.Linear(2, 2).to(torch.bfloat16)
    ema_update(teacher, student, 0.0)
    torch.testing.assert_close(teacher.weight, student.weight.float())


def moons(n, degrees, seed):
    """Two interleaved half circles, turned."""
    x, y = make_moons(n, noise=0.05, random_state=seed)
    angle = math.radians(degrees)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return torch.tensor(x - [0.5, 0.25], dtype=torch.float32) @ turn.T, torch.tensor(y)


def train(method, seed, steps=500):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    (xs, ys), (xt, _) = moons(200, 0, 1), moons(200, 40, 2)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    if method is not None:
        method.setup(network, Fields())
    for step in range(steps):
        loss = nn.functional.cross_entropy(network(xs), ys)
        if method is not None:
            strong = xt + 0.15 * torch.randn_like(xt)
            loss = loss + method(Fields(target_image=xt, target_strong_logits=network(strong)), step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if method is not None:
            method.after_step(network, step / steps)
    xt, yt = moons(400, 40, 3)
    judge = network if method is None else method.teacher
    return (judge(xt).argmax(1) == yt).float().mean().item()


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seed", SEEDS)
def test_follows_a_rotation_without_labels(seed):
    assert train(MeanTeacher(decay=0.98, weight=30.0), seed) > train(None, seed) + 0.05


def run_of(folder, keep, epochs=3, stop=None):
    """A run with checkpoints, ended by an interrupt in the epoch after ``stop``."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    g = torch.Generator().manual_seed(1)
    batches = [{"image": torch.randn(6, 1, 8, 8, generator=g), "label": torch.tensor([0, 1] * 3)} for _ in range(3)]
    method = MeanTeacher(decay=0.9, keep=keep)
    trainer = SupervisedTrainer(
        device="cpu", max_epochs=epochs, train_data_loader=batches, network=network, decollate=False,
        optimizer=torch.optim.SGD(network.parameters(), 0.1, momentum=0.9), loss_function=nn.CrossEntropyLoss(),
        train_handlers=[Checkpoint(folder), Adapt(method, [{"image": b["image"] + 1} for b in batches])],
    )  # fmt: skip
    evaluated = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluated.append(network[3].weight.detach().clone()))

    def interrupt(engine):
        if engine.state.epoch == stop + 1:
            raise KeyboardInterrupt

    if stop is not None:
        trainer.add_event_handler(Events.ITERATION_COMPLETED, interrupt)
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
    else:
        trainer.run()
    return network, method, evaluated


def test_the_teacher_can_be_the_runs_result(tmp_path):
    kept, method, evaluated = run_of(tmp_path / "teacher", "teacher")
    plain, other, students = run_of(tmp_path / "student", "student")
    saved = torch.load(tmp_path / "teacher/models/model.pt", weights_only=True)
    for name, value in other.teacher.state_dict().items():  # training itself is the same
        torch.testing.assert_close(method.teacher.state_dict()[name], value, rtol=0, atol=0)
        torch.testing.assert_close(saved[name], value, rtol=0, atol=0)
        torch.testing.assert_close(kept.state_dict()[name], value, rtol=0, atol=0)
    assert not torch.equal(plain[3].weight, kept[3].weight)
    assert not any(torch.equal(a, b) for a, b in zip(evaluated, students, strict=True))
    run_of(tmp_path / "cut", "teacher", stop=1)
    run_of(tmp_path / "cut", "teacher")
    again = torch.load(tmp_path / "cut/models/model.pt", weights_only=True)
    assert all(torch.equal(again[name], value) for name, value in saved.items())
    with pytest.raises(InputError, match="one of student, teacher"):
        MeanTeacher(keep="peer")
