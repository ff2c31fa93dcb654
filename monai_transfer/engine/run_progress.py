"""Where a run stands: the share of it that is done, as a loop or an engine counts it, across resumed runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.networks.schedules import run_progress

__all__ = ["RunProgress"]


class RunProgress:
    """The share of a run that is done, in [0, 1], which the weights of terms follow.

    An engine that counts for itself says where it stands with ``follow``; else ``count`` is called once per batch.

    Args:
        epochs: of the run; needed where ``count`` is used.
        epoch_length: batches per epoch; needed where ``count`` is used.

    >>> progress = RunProgress(epochs=2, epoch_length=2)
    >>> shares = []
    >>> for _ in range(4):
    ...     progress.count()
    ...     shares.append(progress.now)
    >>> shares  # 0 in the first batch; the fourth of four begins when three quarters are done
    [0.0, 0.25, 0.5, 0.75]
    """

    def __init__(self, epochs: int | None = None, epoch_length: int | None = None) -> None:
        self.epochs, self.epoch_length = epochs, epoch_length
        self.iteration = 0
        self.now, self.done = 0.0, 0.0  # before and after the present batch
        self.followed = False  # an engine counts
        self._start = 0.0  # where the run stood when a trainer that counts from its own start took it over
        self._loaded: float | None = None

    def follow(self, iteration: int, epoch_length: int | None, epochs: int) -> None:
        """Take over from an engine that it is in its ``iteration``, counted from 1 over the whole run.

        Where the engine was not resumed together with this, the rest of the run goes on from where this one stood.
        """
        self.followed = True
        self._place(iteration, epoch_length, epochs)

    def _place(self, iteration: int, epoch_length: int | None, epochs: int) -> None:
        self.iteration, self.epoch_length, self.epochs = iteration, epoch_length, epochs
        if self._loaded is not None:
            self._start, self._loaded = self._loaded if iteration <= 1 else 0.0, None
        whole = max((epoch_length or 1) * epochs, 1)
        left = 1 - self._start
        self.done = self._start + left * min(iteration / whole, 1.0)
        self.now = self._start + left * run_progress(iteration, epoch_length or 1, epochs)

    def count(self) -> None:
        """One batch more, in a loop that has no engine.

        Raises:
            InputError: the run's length is not known.
        """
        if not self.epochs or not self.epoch_length:
            raise InputError(
                "how long the run is is not known, and a term's weight follows it",
                hint="pass epochs=... and epoch_length=len(loader)",
            )
        self._loaded = None
        self._place(self.iteration + 1, self.epoch_length, self.epochs)

    @property
    def starts_epoch(self) -> bool:
        """Whether the present batch is an epoch's first."""
        return (self.iteration - 1) % self.epoch_length == 0 if self.epoch_length else False

    @property
    def ends_epoch(self) -> bool:
        """Whether the present batch is an epoch's last."""
        return self.iteration > 0 and self.iteration % self.epoch_length == 0 if self.epoch_length else False

    def state_dict(self) -> dict[str, Any]:
        """The share that is done; with the batches counted, where none but this counted them."""
        state: dict[str, Any] = {"progress": self.done if self._loaded is None else self._loaded}
        return state if self.followed or not self.iteration else {**state, "iteration": self.iteration}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore; what ``state`` holds beside it does not matter."""
        self._loaded = float(state.get("progress", 0.0))
        self.iteration = int(state.get("iteration", 0))
