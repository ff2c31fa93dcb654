"""How long a training will take, said once after a few timed steps."""

from __future__ import annotations

import logging
import time
from typing import Any

from ignite.engine import Engine, Events

__all__ = ["TimeEstimate", "in_words"]

logger = logging.getLogger("monai_transfer")
_WARM, _TIMED = 2, 5


def in_words(seconds: float) -> str:
    """A duration as people say it.

    >>> in_words(50), in_words(1000), in_words(9000)
    ('50 s', '17 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class TimeEstimate:
    """A handler for any trainer: times five steps after the first two and says what all that are left will take.

    Validation and loading the first cases are not in it. ``engine.state.seconds_per_step`` holds what was measured.
    """

    def __init__(self) -> None:
        self._seen, self._began = 0, 0.0

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)

    def _start(self, engine: Any) -> None:
        self._seen = 0

    def _step(self, engine: Any) -> None:
        self._seen += 1
        if self._seen == _WARM:
            self._began = time.perf_counter()
        if self._seen != _WARM + _TIMED:
            return
        each = (time.perf_counter() - self._began) / _TIMED
        engine.state.seconds_per_step = each
        left = engine.state.max_epochs * engine.state.epoch_length - engine.state.iteration
        logger.info(
            "%.2f s per step: about %s for the %d steps left, validation not counted", each, in_words(each * left), left
        )
