"""A running average of the weights in stock trainers: accumulation, AMP, validation, resume bit for bit."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from monai.transforms import Compose, RandGaussianNoised

from monai_transfer.engine.checkpoint import Checkpoint, load_checkpoint
from monai_transfer.engine.epoch_seed import EpochSeed
from monai_transfer.engine.precision import AutocastInferer
from monai_transfer.engine.weight_average import WeightAverage
from monai_transfer.errors import InputError
from monai_transfer.strategies.lora import Lora


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    )


def loader():
    items = [{"image": torch.randn(1, 8, 8), "label": i % 2} for i in range(8)]
    return DataLoader(
        CacheDataset(items, Compose([RandGaussianNoised("image", prob=0.7)]), progress=False), batch_size=2
    )


def build(net, handlers, epochs=3, **options):
    return SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=epochs, train_data_loader=loader(), network=net, decollate=False,
        optimizer=torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], 1e-2),
        loss_function=torch.nn.CrossEntropyLoss(), train_handlers=[EpochSeed(1), *handlers], **options,
    )  # fmt: skip


def copies(net):
    return {key: value.detach().clone() for key, value in net.state_dict().items()}


@pytest.mark.parametrize(
    "options", [{}, {"accumulation_steps": 3}, {"inferer": AutocastInferer()}], ids=["plain", "accumulated", "autocast"]
)
def test_it_is_the_average_over_real_steps(options):
    net = network()
    average = WeightAverage(0.8)
    trainer = build(net, [average], **options)
    seen = [copies(net)]
    every = options.get("accumulation_steps", 1)

    @trainer.on(Events.ITERATION_COMPLETED)
    def _keep(engine):
        place = (engine.state.iteration - 1) % 4 + 1
        if place % every == 0 or place == 4:
            seen.append(copies(net))

    trainer.run()
    expected = seen[0]
    for step, weights in enumerate(seen[1:], 1):
        decay = min(0.8, (1 + step) / (10 + step))
        expected = {
            key: decay * expected[key] + (1 - decay) * value if value.is_floating_point() else value
            for key, value in weights.items()
        }
    assert average.step == len(seen) - 1 == (12 if every == 1 else 6)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, expected[key], msg=key)
    assert not torch.allclose(net[3].weight, seen[-1]["3.weight"]), "at the end the network holds the average"


def test_validation_and_the_written_model_are_of_the_average(tmp_path):
    net = network()
    seen = {}
    evaluator = SupervisedEvaluator(device=torch.device("cpu"), val_data_loader=loader(), network=net)
    evaluator.add_event_handler(Events.EPOCH_COMPLETED, lambda e: seen.setdefault("validated", []).append(copies(net)))
    average = WeightAverage(0.5, validator=evaluator)
    checkpoint = Checkpoint(tmp_path)
    trainer = build(net, [average, ValidationHandler(1, evaluator), checkpoint])
    training = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda e: training.append(copies(net)))
    trainer.run()
    model, last = (load_checkpoint(tmp_path / "models" / f"{name}.pt") for name in ("model", "last"))
    for key in model:
        assert torch.equal(model[key], net.state_dict()[key])
        assert torch.equal(model[key], seen["validated"][-1][key])
        assert torch.equal(last["network"][key], training[-1][key]), "training goes on from its own weights"
    assert not torch.equal(model["3.weight"], last["network"]["3.weight"])
    evaluator.run()
    assert torch.equal(net[3].weight, model["3.weight"]), "an evaluation afterwards sees what is there"


def test_resume_is_bitwise(tmp_path):
    def run(folder, stop_after=None):
        net = network()
        trainer = build(net, [WeightAverage(0.9), Checkpoint(folder)], epochs=4)
        if stop_after is not None:

            @trainer.on(Events.ITERATION_COMPLETED)
            def _die(engine):
                if engine.state.epoch == stop_after + 1 and engine.state.iteration % 4 == 2:
                    raise KeyboardInterrupt

        trainer.run()
        return copies(net)

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop_after=2)
    torch.manual_seed(99)
    resumed = run(tmp_path / "cut")
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key
    one, two = (load_checkpoint(tmp_path / name / "models" / "last.pt") for name in ("whole", "cut"))
    kept = [c["handlers"]["weight_average"] for c in (one, two)]
    assert kept[0]["step"] == kept[1]["step"] == 16
    assert all(torch.equal(value, kept[1]["average"][key]) for key, value in kept[0]["average"].items())


def test_with_injected_parameters_the_merged_average_is_exported(tmp_path):
    net = Lora(rank=2).apply(network())
    trainer = build(net, [WeightAverage(0.5), Checkpoint(tmp_path)])
    trainer.run()
    plain = network()
    plain.load_state_dict(load_checkpoint(tmp_path / "models" / "model.pt"))
    image = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(plain.eval()(image), net.eval()(image))


def test_a_failing_validation_leaves_the_training_its_weights():
    net = network()
    evaluator = SupervisedEvaluator(device=torch.device("cpu"), val_data_loader=loader(), network=net)

    @evaluator.on(Events.ITERATION_STARTED)
    def _fail(engine):
        raise RuntimeError("no memory")

    trainer = build(net, [WeightAverage(0.5, validator=evaluator), ValidationHandler(1, evaluator)])
    before = {}
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: before.update(copies(net)))
    with pytest.raises(RuntimeError, match="no memory"):
        trainer.run()
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_a_second_run_of_a_trainer_starts_anew():
    """Federated rounds: the weights that the server sent, not those of the last round."""
    net = network()
    trainer = build(net, [WeightAverage(0.9)], epochs=1)
    trainer.run()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(7.0)
    trainer.run()
    assert net[3].weight.mean() > 3


def test_refused():
    with pytest.raises(InputError, match="decay"):
        WeightAverage(1.0)
    with pytest.raises(ValueError, match="two handlers"):
        build(network(), [WeightAverage(), WeightAverage(name="other")])
