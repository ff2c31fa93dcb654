"""Source-free adaptation as a run: the method in place of a training, and the weights where a training leaves them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from monai_transfer.engine.checkpoint import export_state, save_checkpoint
from monai_transfer.testtime.base import SourceFree

__all__ = ["SourceFreeRun"]

logger = logging.getLogger("monai_transfer")


class SourceFreeRun:
    """Adapt a network on unlabelled target images: by ``fit`` before it is evaluated, or by ``wrap`` while it is.

    ``models/model.pt`` of the run folder then holds the fitted weights; ``models/student.pt`` those of a student whose
    teacher they are. A method that adapts while it predicts leaves
    none but the source's: prediction elsewhere does not adapt.

    Args:
        method: from ``monai_transfer.testtime``.
        network: with its source weights.
        loader: unlabelled target batches.
        output_dir: the run folder.
        task: of the network, where its outputs do not exclude each other; None: they do.

    >>> import tempfile, torch
    >>> from monai_transfer.testtime import Adabn
    >>> network = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = SourceFreeRun(Adabn(), network, [{"image": torch.full((4, 1), 7.0)}], folder)
    ...     run.run()
    ...     (Path(folder) / "models" / "model.pt").is_file()
    True
    >>> network[0].running_mean
    tensor([7.])
    """

    def __init__(
        self,
        method: SourceFree,
        network: nn.Module,
        loader: Iterable[Any],
        output_dir: str | Path,
        task: str | None = None,
    ) -> None:
        if task is not None:
            method.for_task(task)
        self.method, self.source, self.loader, self.output_dir = method, network, loader, Path(output_dir)
        wrap = getattr(method, "wrap", None)
        self.network: nn.Module = network if wrap is None else wrap(network)
        """What is evaluated."""

    def run(self, evaluator: Any = None) -> None:
        """Fit, and save; or have ``evaluator`` show each of its batches to the adapting network first."""
        since = time.monotonic()
        fit = getattr(self.method, "fit", None)
        if fit is not None:
            fit(self.source, self.loader)
            logger.info("%s: fitted on the target in %.1f s", type(self.method).__name__, time.monotonic() - since)
        elif evaluator is not None:
            self.method.attach(self.network, evaluator)
        models = self.output_dir / "models"
        save_checkpoint(export_state(self.source), models / "model.pt")
        if (student := getattr(self.method, "student", None)) is not None:
            save_checkpoint(student, models / "student.pt")
