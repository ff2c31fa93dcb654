"""One method in four loops: MONAI's trainer, ignite's, Lightning's and a plain one end in the same weights."""

from __future__ import annotations

import copy
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from ignite.engine import create_supervised_trainer
from monai.engines import SupervisedTrainer
from torch import nn

from monai_transfer import Adapt, AdaptLoss, MethodStep
from monai_transfer.errors import InputError
from monai_transfer.methods.adda import Adda
from monai_transfer.methods.coral import Coral
from monai_transfer.methods.dann import Dann
from monai_transfer.methods.dsbn import Dsbn
from monai_transfer.methods.mcd import Mcd
from monai_transfer.methods.mean_teacher import MeanTeacher

LIGHTNING = importlib.util.find_spec("lightning") is not None
METHODS = {
    "coral": (lambda: Coral(), {}),
    "dann": (lambda: Dann(hidden=8), {}),
    "teacher": (lambda: MeanTeacher(decay=0.9, keep="teacher"), {}),
    "dsbn": (lambda: Dsbn(threshold=0.0), {}),
    "target": (lambda: Coral(), {"statistics": "target"}),
    "repeats": (lambda: Mcd(hidden=4, repeats=2), {}),
    "adda": (lambda: Adda(hidden=4, lr=1e-3), {}),
}


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def pairs(count: int, shift: float, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return [(torch.randn(6, 1, 8, 8, generator=g) + shift, torch.tensor([0, 1] * 3)) for _ in range(count)]


SOURCE, TARGET = pairs(4, 0.0, 0), [image for image, _ in pairs(3, 1.0, 1)]
EPOCHS = 2


def seeded(method):
    """The method, whose parts start the same whatever a loop has drawn before."""
    setup = method.setup

    def same(*arguments):
        torch.manual_seed(3)
        setup(*arguments)

    method.setup = same
    return method


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)


def in_monai(method, net, options):
    SupervisedTrainer(
        device="cpu", max_epochs=EPOCHS, train_data_loader=SOURCE, network=net, optimizer=sgd(net), decollate=False,
        loss_function=nn.CrossEntropyLoss(), train_handlers=[Adapt(method, TARGET, **options)],
    ).run()  # fmt: skip


def in_ignite(method, net, options):
    optimizer = sgd(net)
    loss = AdaptLoss(nn.CrossEntropyLoss(), method, net, TARGET, optimizer=optimizer, **options)
    trainer = create_supervised_trainer(net, optimizer, loss)
    loss.attach(trainer)
    trainer.run(SOURCE, max_epochs=EPOCHS)


def in_plain(method, net, options):
    optimizer, criterion = sgd(net), nn.CrossEntropyLoss()
    step = MethodStep(method, net, TARGET, optimizer=optimizer, epochs=EPOCHS, epoch_length=len(SOURCE), **options)
    for _ in range(EPOCHS):
        for image, label in SOURCE:
            logits = net.train()(image)
            loss = step(image, label, logits, loss=criterion(logits, label))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    step.finish()


def classifier(net):
    """A Lightning module, as users have it."""
    from lightning.pytorch import LightningModule

    class Classifier(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return sgd(net)

    return Classifier()


def in_lightning(method, net, options):
    from lightning.pytorch import Trainer

    from monai_transfer import LightningAdapt

    Trainer(
        accelerator="cpu", max_epochs=EPOCHS, callbacks=[LightningAdapt(method, TARGET, **options)], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(classifier(net), torch.utils.data.DataLoader(SOURCE, batch_size=None))  # fmt: skip


@pytest.mark.parametrize("loop", [in_ignite, in_plain, in_lightning])
@pytest.mark.parametrize("kind", METHODS)
def test_the_same_weights_after_two_epochs(kind, loop):
    if loop is in_lightning and not LIGHTNING:
        pytest.skip("lightning is not installed (pip install 'monai-transfer[lightning]')")
    make, options = METHODS[kind]
    ours, other = network(), network()
    first, second = seeded(make()), seeded(make())
    in_monai(first, ours, options)
    loop(second, other, options)
    start = network().state_dict()
    assert not torch.equal(ours[0].weight, start["0.weight"])
    for expected, found in ((ours, other), (first, second)):
        assert expected.state_dict().keys() == found.state_dict().keys()
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(found.state_dict()[name], value, rtol=0, atol=1e-6, msg=name)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in other.modules()), "a hook was left"


def test_accumulation_and_a_scaler_are_followed():
    """Two small batches of one optimizer step, their loss scaled, are one step of everything."""

    def train(scaled: bool):
        net, method = network(), Dann(hidden=8)
        optimizer, criterion = sgd(net), nn.CrossEntropyLoss()
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=scaled)
        step = MethodStep(method, net, TARGET, optimizer=optimizer, epochs=1, epoch_length=4, scaler=scaler)
        torch.manual_seed(3)
        steps = []
        for index, (image, label) in enumerate(SOURCE):
            logits = net.train()(image)
            loss = criterion(logits, label) + step(image, label, logits)
            scaler.scale(loss / 2).backward()
            if index % 2:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                steps.append(next(iter(step.own.of_method.state.values()))["step"].item())
        assert steps == [1, 2]
        return net, method

    (plain, critic), (scaled, other) = train(False), train(True)
    for a, b in ((plain, scaled), (critic, other)):
        for x, y in zip(a.parameters(), b.parameters(), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_a_plain_loop_resumes_where_it_stood():
    def train(step, net, optimizer, epochs):
        for _ in range(epochs):
            for image, label in SOURCE:
                logits = net.train()(image)
                loss = step(image, label, logits, loss=nn.functional.cross_entropy(logits, label))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def start():
        net = network()
        optimizer = sgd(net)
        return net, optimizer, MethodStep(Dann(hidden=4), net, TARGET, optimizer=optimizer, epochs=3, epoch_length=4)

    torch.manual_seed(5)
    whole, optimizer, step = start()
    train(step, whole, optimizer, 3)
    torch.manual_seed(5)
    net, optimizer, step = start()
    train(step, net, optimizer, 1)
    kept = copy.deepcopy((net.state_dict(), optimizer.state_dict(), step.state_dict()))
    net, optimizer, step = start()
    for item, state in zip((net, optimizer, step), kept, strict=True):
        item.load_state_dict(state)
    train(step, net, optimizer, 2)
    for name, value in whole.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name


def test_what_a_plain_loop_forgot_is_said():
    net = network()
    image, label = SOURCE[0]

    def call(method, **options):
        step = MethodStep(method, net, TARGET, **options)
        return step(image, label, net(image))

    with pytest.raises(InputError, match="how long the run is .*epoch_length=len"):
        call(Coral())
    with pytest.raises(InputError, match="Dann has parts that follow .*pass optimizer="):
        call(Dann(), epochs=1, epoch_length=1)
    with pytest.raises(InputError, match="Adda takes the place of the task's loss; pass it"):
        call(Adda(), epochs=1, epoch_length=1, optimizer=sgd(net))
    with pytest.raises(InputError, match="the network is not known"):
        MethodStep(Coral(), None, TARGET)(image, label)
    assert call(Coral(), epochs=1, epoch_length=1).requires_grad


def test_a_second_run_of_one_trainer_goes_on():
    net, method = network(), Dann(hidden=4)
    trainer = SupervisedTrainer(
        device="cpu", max_epochs=1, train_data_loader=SOURCE, network=net, optimizer=sgd(net), decollate=False,
        loss_function=nn.CrossEntropyLoss(), train_handlers=[Adapt(method, TARGET)],
    )  # fmt: skip
    trainer.run()
    before = copy.deepcopy(method.state_dict())
    trainer.state.max_epochs = 2
    trainer.run()
    assert all(not torch.equal(before[name], value) for name, value in method.state_dict().items())


def test_validation_and_further_scales_get_the_task_alone():
    net = network()
    loss = AdaptLoss(nn.CrossEntropyLoss(), Coral(), net, TARGET, epochs=1, epoch_length=1, weight=100.0)
    image, label = SOURCE[0]
    logits = net.train()(image)
    alone = nn.functional.cross_entropy(logits, label)
    assert loss(logits, label) > alone
    assert torch.equal(loss(logits, label), alone), "a second scale of one pass"
    with torch.no_grad():
        logits = net.eval()(image)
        assert torch.equal(loss(logits, label), nn.functional.cross_entropy(logits, label))


def readme_forms() -> dict[str, str]:
    """The README's code blocks for loops, by the comment that each begins with."""
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"```python\n(# .*?)```", text, re.DOTALL)
    return {block.split(maxsplit=2)[1].strip(":,"): block for block in found}


@pytest.mark.parametrize("form", ["MONAI", "ignite", "Lightning", "plain"])
def test_the_readmes_forms_run_and_are_short(form):
    """Each block as it stands; MONAI's `...` and Lightning's module are what a user has already."""
    forms = readme_forms()
    assert set(forms) == {"MONAI", "ignite", "Lightning", "plain"}
    assert all(len(code.strip().splitlines()) < 10 for code in forms.values())
    net = network()
    names = {
        "network": net, "optimizer": sgd(net), "criterion": nn.CrossEntropyLoss(), "loader": SOURCE,
        "target_loader": TARGET, "epochs": 2, "Dann": Dann, "Adapt": Adapt, "AdaptLoss": AdaptLoss,
        "MethodStep": MethodStep, "create_supervised_trainer": create_supervised_trainer,
    }  # fmt: skip
    if form == "MONAI":

        def supervised(_, train_handlers):
            return SupervisedTrainer(
                device="cpu", max_epochs=EPOCHS, train_data_loader=SOURCE, network=net, optimizer=sgd(net),
                decollate=False, loss_function=nn.CrossEntropyLoss(), train_handlers=train_handlers,
            )  # fmt: skip

        names["SupervisedTrainer"] = supervised
    if form == "Lightning":
        pytest.importorskip("lightning", reason="Lightning is not installed: make test-consumers")
        from lightning.pytorch import Trainer

        from monai_transfer import LightningAdapt

        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        names["Trainer"] = lambda **given: Trainer(accelerator="cpu", enable_model_summary=False, **quiet, **given)
        names |= {"LightningAdapt": LightningAdapt, "module": classifier(net)}
        names["loader"] = torch.utils.data.DataLoader(SOURCE, batch_size=None)
    exec(forms[form], names)
    assert not torch.equal(net[0].weight, network()[0].weight)
