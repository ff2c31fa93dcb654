"""How long a training will take: said before its first step by a few rehearsed ones, and again by its own."""

from __future__ import annotations

import logging
import random
import time
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

__all__ = ["TimeEstimate", "in_words", "rehearsed"]

logger = logging.getLogger("monai_transfer")
_WARM, _TIMED = 2, 5
_REHEARSED = 3
_WORTH_IT = 50


def in_words(seconds: float) -> str:
    """A duration as people say it.

    Args:
        seconds: how long it takes.

    >>> in_words(50), in_words(1000), in_words(9000)
    ('50 s', '17 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def rehearsed(engine: Any, steps: int = _REHEARSED) -> float | None:
    """Seconds of a step of a MONAI ``SupervisedTrainer``, by a few that change nothing; ``None`` where one fails.

    A step is loading, forward and backward pass: nothing is learned, and running statistics and the global random
    states are put back. The loader's own transforms draw; ``EpochSeed`` seeds them anew when the epoch begins.

    Args:
        engine: the trainer, started.
        steps: timed ones, behind one that warms up.
    """
    network = engine.network
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]
    states = random.getstate(), np.random.get_state()
    times: list[float] = []
    try:
        with torch.random.fork_rng(enabled=True):
            network.train()
            batches, since = iter(engine.data_loader), time.perf_counter()
            for batch in (next(batches) for _ in range(steps + 1)):
                prepared = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
                inputs, targets, args, options = prepared if len(prepared) == 4 else (*prepared, (), {})
                with torch.autocast("cuda", enabled=bool(engine.amp), **engine.amp_kwargs):
                    loss = engine.loss_function(engine.inferer(inputs, network, *args, **options), targets).mean()
                loss.backward()
                engine.optimizer.zero_grad(set_to_none=True)
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - since)
                since = time.perf_counter()
    except (RuntimeError, StopIteration, ValueError, TypeError, AttributeError, KeyError) as error:
        logger.debug("no step could be rehearsed: %s", error)  # what is wrong, the first real step will say
        engine.optimizer.zero_grad(set_to_none=True)
        return None
    finally:
        for buffer, value in kept:
            buffer.copy_(value)
        random.setstate(states[0])
        np.random.set_state(states[1])
    return float(np.median(times[1:]))


class TimeEstimate:
    """A handler for a MONAI trainer that says how long it will take, once before its first step and once behind a few.

    Before the first step it rehearses a few (see ``rehearsed``) where at least 50 are ahead; put it behind what
    resumes a run (``Checkpoint``) and before what adds to the loss (``Adapt``). Then it times five steps after the
    first two. Validation, and loading the first cases, are not in it. ``engine.state.seconds_per_step`` holds what was
    measured.

    Args:
        rehearse: whether to say it before the first step too.

    >>> from ignite.engine import Engine
    >>> engine = Engine(lambda engine, batch: None)
    >>> TimeEstimate(rehearse=False).attach(engine)
    >>> engine.run(range(20)).seconds_per_step < 1
    True
    """

    def __init__(self, rehearse: bool = True) -> None:
        self.rehearse = rehearse
        self._seen, self._began = 0, 0.0

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)

    def _start(self, engine: Any) -> None:
        self._seen = 0
        ahead = _ahead(engine)
        if not self.rehearse or ahead < _WORTH_IT or not hasattr(engine, "data_loader"):
            return
        if dist.is_available() and dist.is_initialized():
            return  # a rank that fails alone would leave the others waiting
        each = rehearsed(engine)
        if each is not None:
            engine.state.seconds_per_step = each
            logger.info(
                "about %s for the %d steps ahead: %.2f s per step by %d rehearsed ones; validation, and what a method "
                "adds, come on top",
                in_words(each * ahead), ahead, each, _REHEARSED,
            )  # fmt: skip

    def _step(self, engine: Any) -> None:
        self._seen += 1
        if self._seen == _WARM:
            self._began = time.perf_counter()
        if self._seen != _WARM + _TIMED:
            return
        each = (time.perf_counter() - self._began) / _TIMED
        engine.state.seconds_per_step = each
        left = _ahead(engine)
        logger.info(
            "%.2f s per step: about %s for the %d steps left, validation not counted", each, in_words(each * left), left
        )


def _ahead(engine: Any) -> int:
    state = engine.state
    return int(state.max_epochs) * int(state.epoch_length or 0) - int(state.iteration)
