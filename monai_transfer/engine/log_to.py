"""A training's losses and validation scores in TensorBoard or MLflow, through MONAI's own handlers, on this machine.

TensorBoard: event files in ``<run folder>/tensorboard``. MLflow: an SQLite store ``<run folder>/mlflow.db``, which
``mlflow ui --backend-store-uri sqlite:///.../mlflow.db`` shows. Nothing is sent anywhere.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler, TensorBoardStatsHandler

from monai_transfer.engine.processes import process_rank
from monai_transfer.errors import InputError, closest

__all__ = ["LOGS", "LogTo", "require_log"]

LOGS = ("tensorboard", "mlflow")


def require_log(kind: str) -> None:
    """Refuse what cannot be logged to.

    Args:
        kind: ``tensorboard`` or ``mlflow``.

    Raises:
        InputError: no such log, or its package is not installed.

    >>> try:
    ...     require_log("tensorbord")
    ... except InputError as error:
    ...     print(error)
    no log is called 'tensorbord'; did you mean 'tensorboard'?
    """
    if kind not in LOGS:
        raise InputError(f"no log is called {kind!r}", hint=closest(kind, LOGS))
    if importlib.util.find_spec(kind) is None:
        raise InputError(f"--log {kind} needs the package {kind}", hint=f"pip install 'monai-transfer[{kind}]'")


class LogTo:
    """Attach it to a MONAI trainer; MONAI's handlers are made when the training starts, in the opened run folder.

    Args:
        kind: ``tensorboard`` or ``mlflow``.
        output_dir: the run folder.
        validator: the evaluator whose metrics are logged after each validation.

    Raises:
        InputError: see ``require_log``.
    """

    def __init__(self, kind: str, output_dir: str | Path, validator: Engine | None = None) -> None:
        require_log(kind)
        self.kind, self.folder, self.validator = kind, Path(output_dir), validator

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        engine.add_event_handler(Events.STARTED, self._start)

    def _start(self, trainer: Any) -> None:
        if process_rank() != 0:
            return
        for engine, training in ((trainer, True), (self.validator, False)):
            if engine is None:
                continue
            options: dict[str, Any] = {
                "output_transform": _loss if training else _nothing,
                "iteration_log": training,
                "tag_name": "loss",
                "global_epoch_transform": lambda _: trainer.state.epoch,
            }
            handler = self._tensorboard(options) if self.kind == "tensorboard" else self._mlflow(options)
            handler.attach(engine)
            if training and isinstance(handler, MLFlowHandler):
                handler.start(engine)  # its own start has passed

    def _tensorboard(self, options: dict[str, Any]) -> TensorBoardStatsHandler:
        return TensorBoardStatsHandler(log_dir=str(self.folder / "tensorboard"), **options)

    def _mlflow(self, options: dict[str, Any]) -> MLFlowHandler:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)  # they tell of each table that they make
        home = self.folder.resolve()
        return MLFlowHandler(
            tracking_uri=f"sqlite:///{home / 'mlflow.db'}",
            experiment_name="monai_transfer",
            run_name=home.name,
            artifact_location=(home / "mlflow").as_uri(),
            optimizer_param_names=(),
            **options,
        )


def _loss(output: Any) -> Any:
    first = output[0] if isinstance(output, (list, tuple)) else output
    return first["loss"] if isinstance(first, Mapping) else first


def _nothing(_: Any) -> None:
    return None
