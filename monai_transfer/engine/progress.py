"""One line per epoch in the log: where the run stands and how it does."""

from __future__ import annotations

import logging
import time
from typing import Any

from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from monai_transfer.engine.processes import process_rank

__all__ = ["ProgressLine"]

logger = logging.getLogger("monai_transfer")


class ProgressLine:
    """Log ``epoch 3/20  loss 0.41  val_mean_dice 0.72  adapt_loss 0.003  1.2 s`` after each epoch.

    >>> import torch
    >>> from monai.engines import SupervisedTrainer
    >>> network, batch = torch.nn.Linear(2, 1), {"image": torch.ones(4, 2), "label": torch.zeros(4, 1)}
    >>> optimizer = torch.optim.SGD(network.parameters(), 0.1)
    >>> trainer = SupervisedTrainer(torch.device("cpu"), 2, [batch], network, optimizer, torch.nn.MSELoss(),
    ...                             train_handlers=[ProgressLine()])
    >>> from unittest import TestCase
    >>> with TestCase().assertLogs(logger) as seen:
    ...     trainer.run()
    >>> [record.getMessage().split("  ")[0] for record in seen.records]
    ['epoch 1/2', 'epoch 2/2']
    """

    def __init__(self) -> None:
        self._loss: Any = 0.0
        self._count = 0
        self._since = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer, after the validation handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)

    def _reset(self, engine: Any) -> None:
        self._loss, self._count, self._since = 0.0, 0, time.monotonic()

    def _add(self, engine: Any) -> None:
        self._loss = self._loss + engine.state.output["loss"].detach()
        self._count += 1

    def _report(self, engine: Any) -> None:
        if process_rank() != 0:
            return
        state = engine.state
        parts = [f"epoch {state.epoch}/{state.max_epochs}", f"loss {float(self._loss) / max(self._count, 1):.4f}"]
        parts += [f"{name} {value:.4g}" for name, value in getattr(state, "adapt_log", {}).items()]
        parts.append(f"{time.monotonic() - self._since:.1f} s")
        logger.info("  ".join(parts))
