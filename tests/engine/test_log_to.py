"""Losses and scores in TensorBoard and MLflow, read back with the real packages."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import MeanSquaredError, ValidationHandler, from_engine

from monai_transfer.engine.log_to import LogTo
from monai_transfer.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")


def train(kind, folder, epochs=2):
    data = DataLoader(Dataset([{"image": torch.rand(3), "label": torch.rand(1)} for _ in range(4)]), batch_size=2)
    network = torch.nn.Linear(3, 1)
    validator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=data,
        network=network,
        key_val_metric={"val_mse": MeanSquaredError(output_transform=from_engine(["pred", "label"]))},
    )
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=data,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=torch.nn.MSELoss(),
        decollate=False,
        train_handlers=[ValidationHandler(1, validator, epoch_level=True), LogTo(kind, folder, validator)],
    )
    trainer.run()
    return validator.state.metrics["val_mse"]


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    last = train("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses, scores = (events.Scalars(name) for name in ("loss", "val_mse"))
    assert [event.step for event in losses] == [1, 2, 3, 4] and [event.step for event in scores] == [1, 2]
    assert scores[-1].value == pytest.approx(last, rel=1e-5)


def test_mlflow(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    last = train("mlflow", tmp_path)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("monai_transfer")
    (run,) = client.search_runs([experiment.experiment_id])
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "val_mse")] == [1, 2]
    assert run.data.metrics["val_mse"] == pytest.approx(last, rel=1e-5)
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 4


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no log is called 'tensorbord'; did you mean 'tensorboard'"):
        LogTo("tensorbord", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'monai-transfer\[mlflow\]'"):
        LogTo("mlflow", tmp_path)
