"""``metrics.csv``: one row per epoch and split, rewritten atomically, continued when a run resumes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from monai_transfer.engine.processes import process_rank
from monai_transfer.tables import write_table

__all__ = ["MetricsLog"]


class MetricsLog:
    """Write the epoch's mean training losses and, when it was validated, the validation metrics.

    Columns: ``epoch, split, seconds, lr, loss``, then whatever ``TrainingMetrics``, ``Adapt`` and the evaluator report.
    The loss is read at ``BACKWARD_COMPLETED``, with every method's term in it.

    Args:
        output_dir: the run folder.
        validator: the evaluator whose metrics are logged as split ``validation``.
        also: further evaluators, whose metrics stand in the same row.

    >>> import tempfile
    >>> import torch
    >>> from pathlib import Path
    >>> from monai.engines import SupervisedTrainer
    >>> net, folder = torch.nn.Linear(2, 1), tempfile.mkdtemp()
    >>> batches = [{"image": torch.ones(4, 2), "label": torch.zeros(4, 1)}]
    >>> optimizer, loss = torch.optim.SGD(net.parameters(), 0.1), torch.nn.MSELoss()
    >>> log = [MetricsLog(folder)]
    >>> SupervisedTrainer(torch.device("cpu"), 2, batches, net, optimizer, loss, train_handlers=log).run()
    >>> [row.split(",")[:2] for row in (Path(folder) / "metrics.csv").read_text().splitlines()]
    [['epoch', 'split'], ['1', 'training'], ['2', 'training']]
    """

    def __init__(
        self, output_dir: str | Path, validator: Engine | None = None, also: Sequence[Engine] | None = None
    ) -> None:
        self.path = Path(output_dir) / "metrics.csv"
        self.validators = [one for one in (validator, *(also or ())) if one is not None]
        self.rows: list[dict[str, Any]] = []
        self._loss: Any = 0.0
        self._count = 0
        self._validation: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer, after ``TrainingMetrics``, ``Adapt`` and the validation handler."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)
        for validator in self.validators:
            validator.add_event_handler(Events.COMPLETED, self._validated)

    def _start(self, engine: Any) -> None:
        self.rows = []
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as stream:
                self.rows = list(csv.DictReader(stream))

    def _reset(self, engine: Any) -> None:
        self._loss, self._count, self._validation = 0.0, 0, {}
        # a run killed between an epoch's row and its checkpoint runs that epoch again
        self.rows = [row for row in self.rows if int(row["epoch"]) < engine.state.epoch]

    def _add(self, engine: Any) -> None:
        self._loss = self._loss + engine.state.output["loss"].detach()
        self._count += 1

    def _validated(self, validator: Any) -> None:
        self._validation |= {
            name: float(value)
            for name, value in validator.state.metrics.items()
            if not isinstance(value, torch.Tensor) or value.numel() == 1
        }

    def _write(self, engine: Any) -> None:
        if process_rank() != 0:
            return
        epoch = engine.state.epoch
        train = {
            "epoch": epoch,
            "split": "training",
            "seconds": round(engine.state.times.get(Events.EPOCH_COMPLETED.name) or 0.0, 3),
            "lr": f"{engine.optimizer.param_groups[-1]['lr']:.6g}",
            "loss": f"{float(self._loss) / max(self._count, 1):.6g}",
        }
        logs = {**getattr(engine.state, "training_log", {}), **getattr(engine.state, "adapt_log", {})}
        train |= {name: f"{value:.6g}" for name, value in logs.items()}
        self.rows.append(train)
        if self._validation:
            values = {name: f"{value:.6g}" for name, value in self._validation.items()}
            self.rows.append({"epoch": epoch, "split": "validation", **values})
        columns = list(
            dict.fromkeys(name for row in self.rows for name, value in row.items() if value not in ("", None))
        )
        write_table(self.path, self.rows, columns)
