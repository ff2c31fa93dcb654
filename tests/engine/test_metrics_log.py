"""metrics.csv: the numbers of an epoch stand in its own row, whatever order the handlers were attached in."""

from __future__ import annotations

import csv

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from torch import nn

from monai_transfer.engine.adapt import Adapt
from monai_transfer.engine.metrics_log import MetricsLog
from monai_transfer.methods.base import Method


class Counting(Method):
    """A term that says which step it is."""

    needs = frozenset({"source_logits"})

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, fields, progress):
        self.calls += 1
        return 0.0 * fields.source_logits.sum() + self.calls


@pytest.mark.parametrize("log_first", [True, False])
def test_an_epochs_adapt_loss_is_in_its_row(tmp_path, log_first):
    network = nn.Linear(2, 2)
    handlers = [MetricsLog(tmp_path), Adapt(Counting())]
    data = Dataset([{"image": torch.rand(2), "label": torch.rand(2)}] * 4)
    SupervisedTrainer(
        "cpu", 3, DataLoader(data, batch_size=2), network, torch.optim.SGD(network.parameters(), 0.1), nn.MSELoss(),
        train_handlers=handlers if log_first else handlers[::-1], decollate=False,
    ).run()  # fmt: skip
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["adapt_loss"]) for row in rows] == [1.5, 3.5, 5.5]
