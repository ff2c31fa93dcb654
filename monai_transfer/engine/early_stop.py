"""Early stopping by ignite's rule, only where enough validation patients judge; resumes with the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping

from monai_transfer.engine.state import register_stateful
from monai_transfer.errors import InputError

__all__ = ["EarlyStop"]

logger = logging.getLogger(__name__)


class EarlyStop:
    """End a training when the validation's key metric has not improved for ``patience`` validations.

    With two to four validation patients the best epoch is chance, and so is stopping by it: fewer than ``least`` are
    refused. Never use it in one arm of a comparison: the others keep their budget. Put it behind ``Checkpoint``.

    Args:
        patience: validations without a new best value.
        validator: the evaluator whose key metric decides; it must be the one that chooses the epoch.
        cases: the validation's data list; ``patient`` tells whose a case is, else each is one.
        mode: ``"max"`` or ``"min"``: which direction of the key metric is better.
        least: validation patients that are needed.
        run_folder: the ``RunFolder`` whose record is told the epoch and the steps.

    Raises:
        InputError: patience below 1, no validator, or too few patients.

    Paper: Prechelt, Early Stopping - But When?, 1998

    >>> EarlyStop(5, None, [])
    Traceback (most recent call last):
    ...
    monai_transfer.errors.InputError: early stopping wants validation patients who choose the epoch (`selector`)...
    """

    def __init__(
        self,
        patience: int,
        validator: Engine | None,
        cases: Sequence[Mapping[str, Any]],
        mode: str = "max",
        least: int = 8,
        run_folder: Any = None,
    ) -> None:
        if isinstance(patience, bool) or int(patience) < 1:
            raise InputError(f"a patience of {patience}", hint="a number of validations, at least 1; null: no stopping")
        if validator is None:
            raise InputError(
                "early stopping wants validation patients who choose the epoch (`selector`), and this run keeps the "
                "last one",
                hint="leave --patience out",
            )
        patients = {case.get("patient", n) for n, case in enumerate(cases)}
        if len(patients) < least:
            raise InputError(
                f"early stopping wants at least {least} validation patients, and there are {len(patients)}: with so "
                "few the moment would be chance",
                hint="leave --patience out: the budget and the falling learning rate end the training",
            )
        self.patience, self.validator, self.mode, self.run_folder = int(patience), validator, mode, run_folder
        self._rule: EarlyStopping | None = None
        self._loaded: dict[str, Any] = {}
        self._epochs = 0

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        self._rule = EarlyStopping(self.patience, self._score, engine, mode=self.mode)  # type: ignore[arg-type]
        register_stateful(engine, "early_stop", self)
        engine.add_event_handler(Events.STARTED, self._start)
        self.validator.add_event_handler(Events.COMPLETED, self._rule)
        engine.add_event_handler(Events.COMPLETED, self._end)

    def _score(self, validator: Any) -> float:
        value = validator.state.metrics.get(validator.state.key_metric_name)
        score = float("nan") if value is None else float(value)
        # what is no number is no improvement
        return score if score == score else float("-inf" if self.mode == "max" else "inf")

    def _start(self, engine: Any) -> None:
        assert self._rule is not None
        if self._loaded and self._loaded["epochs"] != engine.state.max_epochs:
            self._rule.counter = 0  # prolonged: somebody wants more
        self._epochs = int(engine.state.max_epochs)
        if self._rule.counter >= self.patience:  # killed between stopping and the test
            engine.terminate()

    def _end(self, engine: Any) -> None:
        assert self._rule is not None
        if self._rule.counter < self.patience or engine.state.epoch >= engine.state.max_epochs:
            return
        epoch = int(engine.state.epoch)
        logger.info(
            "stopped early after epoch %d of %d: no better validation in the last %d",
            epoch, engine.state.max_epochs, self.patience,
        )  # fmt: skip
        if self.run_folder is not None:
            self.run_folder.note(stopped_early_at=epoch, steps=int(engine.state.iteration))

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs."""
        assert self._rule is not None
        return {"counter": self._rule.counter, "best_score": self._rule.best_score, "epochs": self._epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from it."""
        assert self._rule is not None
        self._loaded = dict(state)
        self._rule.counter, self._rule.best_score = int(state["counter"]), state["best_score"]
