"""The small handlers on a real trainer: guard, metrics log, progress line, taps, prepared networks."""

from __future__ import annotations

import csv
import logging

import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from monai.networks.nets import DenseNet, UNet

from monai_transfer.engine.guard import NonFiniteLossError, StopOnNonFiniteLoss
from monai_transfer.engine.metrics_log import MetricsLog
from monai_transfer.engine.prepare import Prepared
from monai_transfer.engine.progress import ProgressLine
from monai_transfer.engine.state import is_step, register_stateful
from monai_transfer.errors import CoverageError, InputError
from monai_transfer.networks.tap import Tap
from monai_transfer.networks.wrappers import unwrap


def run(handlers, network=None, epochs=2, loss=None, value=1.0):
    network = network if network is not None else torch.nn.Linear(2, 2)
    engine = SupervisedTrainer(
        device="cpu", max_epochs=epochs,
        train_data_loader=DataLoader([{"image": torch.full((2,), value), "label": 0}] * 4, batch_size=2),
        network=network, optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=loss or torch.nn.CrossEntropyLoss(), train_handlers=handlers, decollate=False,
    )  # fmt: skip
    engine.run()
    return engine


def test_guard_stops_before_the_weights_are_touched():
    network = torch.nn.Linear(2, 2)
    before = network.weight.detach().clone()
    with pytest.raises(NonFiniteLossError, match="epoch 1, iteration 1"):
        run([StopOnNonFiniteLoss()], network, value=float("nan"))
    assert torch.equal(before, network.weight)


def test_metrics_log_and_its_continuation(tmp_path):
    run([MetricsLog(tmp_path)])
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"] and all(float(row["loss"]) > 0 for row in rows)
    run([MetricsLog(tmp_path)], epochs=1)  # an epoch that is run again replaces its row and what came after
    assert len(list(csv.DictReader((tmp_path / "metrics.csv").open()))) == 1


def test_progress_line(caplog):
    with caplog.at_level(logging.INFO, logger="monai_transfer"):
        run([ProgressLine()])
    lines = [r.getMessage() for r in caplog.records if r.name == "monai_transfer"]
    assert len(lines) == 2 and lines[0].startswith("epoch 1/2  loss ")


def test_tap_by_name_and_by_default():
    network = DenseNet(2, 1, 2, init_features=4, growth_rate=2, block_config=(1,), bn_size=1)
    tap = Tap(network)
    network(torch.rand(3, 1, 8, 8))
    assert tap.take().shape[0] == 3
    with pytest.raises(InputError, match="not used"):
        tap.take()  # taken values are forgotten
    with pytest.raises(InputError, match="not a module"):
        Tap(network, "features.nothing")


def test_state_helpers():
    network = torch.nn.Linear(1, 1)
    assert unwrap(torch.nn.DataParallel(network)) is network
    engine = run([])
    assert is_step(engine)
    register_stateful(engine, "a", network)
    with pytest.raises(ValueError, match="two handlers"):
        register_stateful(engine, "a", torch.nn.Linear(1, 1))


def test_prepared(tmp_path):
    def net(classes):
        return UNet(2, 1, classes, channels=(4, 8), strides=(2,), norm="BATCH")

    torch.save(net(3).state_dict(), tmp_path / "source.pt")
    fresh = Prepared(net(3))
    assert fresh.report is None
    ready = Prepared(
        net(2), tmp_path / "source.pt", source_classes=["background", "a", "b"], target_classes=["background", "b"]
    )
    assert ready.report is not None and ready.report.adapted
    with pytest.raises(InputError, match="not there"):
        Prepared(net(3), tmp_path / "nothing.pt")
    with pytest.raises(CoverageError):
        Prepared(DenseNet(2, 1, 2, init_features=4, growth_rate=2, block_config=(1,)), tmp_path / "source.pt")
