"""Adapt in trainers and with batches of other people's making: right, or refused in the first iteration in one line."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import create_supervised_trainer
from monai.engines import PrepareBatchExtraInput, SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import nn

from monai_transfer import Adapt, AdaptLoss
from monai_transfer.errors import InputError
from monai_transfer.methods.coral import Coral
from monai_transfer.methods.dann import Dann
from monai_transfer.methods.mean_teacher import MeanTeacher


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def batches(shift: float, image: str = "image", label: str | None = "label") -> list[dict]:
    g = torch.Generator().manual_seed(int(shift))
    made = [torch.randn(4, 1, 8, 8, generator=g) + shift for _ in range(3)]
    return [{image: x, **({label: torch.tensor([0, 1] * 2)} if label else {})} for x in made]


def train(handler, source, kind=SupervisedTrainer, net=None, **options):
    net = net or network()
    trainer = kind(
        device="cpu", max_epochs=2, train_data_loader=source, network=net, loss_function=nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(net.parameters(), 0.1), decollate=False, train_handlers=[handler], **options,
    )  # fmt: skip
    trainer.run()
    return net


def same(ours: nn.Module, other: nn.Module) -> None:
    for a, b in zip(ours.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def by_hand(batch, device, non_blocking):
    return batch["img"].to(device), batch["seg"].to(device)


def img(batch, device, non_blocking):
    return batch["img"].to(device), batch.get("seg")


@pytest.fixture(scope="module")
def expected():
    return train(Adapt(Coral(), batches(1)), batches(0))


@pytest.mark.parametrize(
    ("source", "target", "options", "keys"),
    [
        ([tuple(b.values()) for b in batches(0)], [tuple(b.values()) for b in batches(1)], {}, None),
        ([tuple(b.values()) for b in batches(0)], [b["image"] for b in batches(1)], {}, None),
        (batches(0), batches(1, "t2"), {}, {"image": "t2"}),
        (batches(0, "img", "seg"), batches(1, "img", None), {"prepare_batch": by_hand}, {"image": "img"}),
        (batches(0, "img", "seg"), batches(1, "img", None), {"prepare_batch": img}, None),
        (batches(0, "img", "seg"), batches(1, "img", "seg"), {"prepare_batch": by_hand}, None),
    ],
    ids=["tuples", "tensors", "keys", "keys for the target", "prepare_batch", "prepare_batch with labels"],
)
def test_batches_of_any_form(source, target, options, keys, expected):
    same(train(Adapt(Coral(), target, keys=keys), source, **options), expected)


class TwoInputs(nn.Module):
    """A network that takes a second tensor beside its image."""

    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, image, offset):
        return self.body(image + offset)


def test_what_prepare_batch_adds_reaches_the_network_for_target_images_too(expected):
    def shifted(shift):
        return [{**b, "image": b["image"] - 1, "offset": torch.ones(1)} for b in batches(shift)]

    net = TwoInputs()
    train(Adapt(Coral(), shifted(1)), shifted(0), net=net, prepare_batch=PrepareBatchExtraInput("offset"))
    for a, b in zip(net.body.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_batches_that_hold_no_image_are_refused_by_name():
    with pytest.raises(InputError, match=r"no tensor under 'image', but the keys 'img'; .*keys=\{"):
        train(Adapt(Coral(), batches(1, "img", None)), batches(0))
    with pytest.raises(InputError, match=r"prepare_batch does not take .*KeyError: 'seg'.*keys=\{"):
        train(Adapt(Coral(), batches(1, "img", None)), batches(0, "img", "seg"), prepare_batch=by_hand)
    with pytest.raises(InputError, match="what can be named is"):
        Adapt(Coral(), batches(1), keys={"mask": "seg"})


def test_an_engine_without_the_events_is_refused_and_the_loss_function_taken_instead(expected):
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    plain = create_supervised_trainer(net, optimizer, nn.CrossEntropyLoss())
    with pytest.raises(InputError, match="no event between loss and backward pass; .*AdaptLoss"):
        Adapt(Coral(), batches(1)).attach(plain)
    loss = AdaptLoss(nn.CrossEntropyLoss(), Coral(), net, batches(1), optimizer=optimizer)
    trainer = create_supervised_trainer(net, optimizer, loss)
    loss.attach(trainer)
    trainer.run([tuple(b.values()) for b in batches(0)], max_epochs=2)
    same(net, expected)


class Own(SupervisedTrainer):
    """As in tutorials: an iteration of its own, with the events ``fires``, that may compute a loss of its own."""

    fires: tuple = ()
    reads = True

    def _iteration(self, engine, batch):
        image, label = batch["image"], batch["label"]
        engine.state.output = {"image": image, "label": label}
        engine.network.train()
        engine.optimizer.zero_grad()
        engine.state.output["pred"] = engine.inferer(image, engine.network)
        loss = engine.loss_function(engine.state.output["pred"], label)
        engine.state.output["loss"] = loss
        for event in self.fires:
            engine.fire_event(event)
        (engine.state.output["loss"] if self.reads else loss).backward()
        engine.optimizer.step()
        return engine.state.output


class LossOnly(Own):
    fires = (IterationEvents.LOSS_COMPLETED,)


class Deaf(Own):
    fires, reads = (IterationEvents.LOSS_COMPLETED,), False


class OtherOptimizer(LossOnly):
    def _iteration(self, engine, batch):
        own, engine.optimizer = engine.optimizer, torch.optim.SGD(engine.network.parameters(), 0.1)
        try:
            return super()._iteration(engine, batch)
        finally:
            engine.optimizer = own


@pytest.mark.parametrize("method", [Coral, lambda: Dann(hidden=4), lambda: MeanTeacher(0.5)])
def test_a_trainer_that_fires_no_more_than_the_loss_is_right(method):
    """Critics and teachers follow the optimizer, not BACKWARD_COMPLETED or MODEL_COMPLETED."""
    torch.manual_seed(0)
    stock = Adapt(method(), batches(1))
    ours = train(stock, batches(0))
    torch.manual_seed(0)
    own = Adapt(method(), batches(1))
    same(train(own, batches(0), LossOnly), ours)
    for name, value in stock.method.state_dict().items():
        assert torch.equal(own.method.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Own, "Own fires no LOSS_COMPLETED.*AdaptLoss"),
        (Deaf, "Deaf runs backward on another loss.*AdaptLoss"),
        (OtherOptimizer, "OtherOptimizer steps another optimizer.*AdaptLoss"),
    ],
)
def test_a_trainer_in_which_the_term_would_be_lost_is_refused_in_its_first_iteration(kind, fault):
    with pytest.raises(InputError, match=fault):
        train(Adapt(MeanTeacher(), batches(1)), batches(0)[:1], kind)


def test_the_way_out_works_in_such_a_trainer(expected):
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    loss = AdaptLoss(nn.CrossEntropyLoss(), Coral(), net, batches(1), optimizer=optimizer)
    trainer = Own(
        device="cpu", max_epochs=2, train_data_loader=batches(0), network=net, loss_function=loss, optimizer=optimizer
    )
    loss.attach(trainer)
    trainer.run()
    same(net, expected)
