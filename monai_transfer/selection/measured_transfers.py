"""What happened on sets like this one: transfers that were measured, as a guide to which source suits a target.

Each measured transfer is one source and one target of public or embedded data: what ``rank`` says of the source on the
target's labelled cases, and what fine-tuning it brought over training from scratch, on test cases, over seeds
(``benchmarks/measured_transfers.py`` makes the table). For a new source the transfers whose advantage in the linear
probe is nearest are looked up. How good such a forecast is, is part of it: it is made for each measured target from the
other targets alone, and where that is no better than the mean of all, it says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Forecast", "MeasuredTransfer", "forecast_gain", "leave_one_target_out", "measured_transfers"]

NEAREST = 3
"""Transfers that a forecast is the mean of."""

_PATH = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class MeasuredTransfer:
    """One source fine-tuned on one target.

    Args:
        source, target: what they are.
        task: classification, segmentation or regression.
        labelled: labelled target cases that were trained on.
        probe, untrained_probe: ``rank``'s linear probe on the source's features, and on those of the same network
            untrained.
        logme: how far LogME lies beyond its permutation null: (score - median) / (95 % - median).
        scratch, untouched, fine_tuned: test means of the task's metric, larger better, 1 perfect; ``untouched`` is
            ``None`` where the source has no outputs for the target's classes.
        seeds: that the means are over.
        measured: the date.

    >>> one = MeasuredTransfer("head MR", "knee MR", "segmentation", 4, 0.8, 0.7, 2.0, 0.5, 0.4, 0.62, 5, "2026-11-29")
    >>> round(one.advantage, 2), round(one.gain, 2)  # of the features; of the fine-tuned network over scratch
    (0.1, 0.12)
    """

    source: str
    target: str
    task: str
    labelled: int
    probe: float
    untrained_probe: float
    logme: float
    scratch: float
    untouched: float | None
    fine_tuned: float
    seeds: int
    measured: str

    @property
    def advantage(self) -> float:
        """The linear probe's value over that of the untrained network."""
        return self.probe - self.untrained_probe

    @property
    def gain(self) -> float:
        """Fine-tuned over scratch, on test cases."""
        return self.fine_tuned - self.scratch


@dataclass(frozen=True)
class Forecast:
    """What fine-tuning a source brought over scratch in the transfers most like this one.

    Args:
        gain, low, high: mean, least and largest gain of the nearest transfers.
        nearest: what they were, ``source -> target``.
        of: how many measured transfers there are.
        error: mean absolute error of such forecasts, each target from the others alone.
        error_of_mean: the same where every forecast is the mean of the others' gains.
        right, pairs: of so many pairs of sources for one target, how many come in the right order.
    """

    gain: float
    low: float
    high: float
    nearest: tuple[str, ...]
    of: int
    error: float
    error_of_mean: float
    right: int
    pairs: int

    @property
    def is_guide(self) -> bool:
        """Whether such forecasts were closer than the mean of all gains."""
        return round(self.error, 3) < round(self.error_of_mean, 3)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"is_guide": self.is_guide}

    def __str__(self) -> str:
        said = (
            f"fine-tuned, the {len(self.nearest)} nearest of {self.of} measured transfers ({', '.join(self.nearest)}) "
            f"gained {self.gain:+.2f} over scratch ({self.low:+.2f} to {self.high:+.2f})"
        )
        if self.is_guide:
            return f"{said}; such a forecast is {self.error:.2f} off on average"
        return (
            f"{said}; no guide: such forecasts are {self.error:.2f} off on average, and the mean of all transfers "
            f"{self.error_of_mean:.2f}"
        )


@cache
def measured_transfers() -> tuple[MeasuredTransfer, ...]:
    """The measured transfers that come with this package.

    >>> len({one.target for one in measured_transfers()}) > 1
    True
    """
    return tuple(MeasuredTransfer(**row) for row in json.loads(_PATH.read_text(encoding="utf-8")))


def forecast_gain(
    task: str,
    probe: float,
    untrained_probe: float,
    *,
    transfers: Sequence[MeasuredTransfer] | None = None,
) -> Forecast | None:
    """What fine-tuning brought over scratch where the features had a like advantage.

    Args:
        task: of the target; transfers of other tasks are looked at only where there are fewer than three of its own.
        probe, untrained_probe: the linear probe's values (``rank_sources``).
        transfers: to look among; the package's own by default.

    Returns:
        ``None`` where transfers to fewer than two targets were measured.

    >>> def one(source, target, probe, tuned):
    ...     return MeasuredTransfer(source, target, "regression", 4, probe, 0.5, 1, 0.4, None, tuned, 5, "2026-11-29")
    >>> few = [one("a", "x", 0.5, 0.4), one("b", "x", 0.8, 0.7), one("a", "y", 0.6, 0.5), one("b", "y", 0.8, 0.72)]
    >>> found = forecast_gain("regression", 0.81, 0.5, transfers=few)
    >>> round(found.gain, 2), found.of, found.nearest[0]  # the mean of the three nearest of four
    (0.24, 4, 'b -> x')
    """
    known = list(measured_transfers() if transfers is None else transfers)
    if len({one.target for one in known}) < 2:
        return None
    near = _nearest(task, probe - untrained_probe, known)
    gains = [one.gain for one in near]
    error, error_of_mean, right, pairs = leave_one_target_out(known)
    return Forecast(
        float(np.mean(gains)),
        min(gains),
        max(gains),
        tuple(f"{one.source} -> {one.target}" for one in near),
        len(known),
        error,
        error_of_mean,
        right,
        pairs,
    )


def leave_one_target_out(transfers: Sequence[MeasuredTransfer]) -> tuple[float, float, int, int]:
    """How good forecasts are: each target's from the transfers to other targets.

    Args:
        transfers: to two targets at least.

    Returns:
        mean absolute error over targets of the forecasts, and of the mean gain of the others; of how many pairs of
        sources for one target the order of the forecasts was right, and how many pairs there were. A pair whose
        forecasts are equal counts as wrong.

    >>> def one(source, target, probe, tuned):
    ...     return MeasuredTransfer(source, target, "regression", 4, probe, 0.5, 1, 0.4, None, tuned, 5, "2026-11-29")
    >>> leave_one_target_out([one("a", "x", 0.6, 0.5), one("a", "y", 0.6, 0.5)])  # each foretells the other
    (0.0, 0.0, 0, 0)
    """
    errors, of_mean, right, pairs = [], [], 0, 0
    for target in sorted({one.target for one in transfers}):
        own = [one for one in transfers if one.target == target]
        others = [one for one in transfers if one.target != target]
        mean = float(np.mean([one.gain for one in others]))
        told = [float(np.mean([n.gain for n in _nearest(one.task, one.advantage, others)])) for one in own]
        errors.append(np.mean([abs(guess - one.gain) for guess, one in zip(told, own, strict=True)]))
        of_mean.append(np.mean([abs(mean - one.gain) for one in own]))
        for (guess, one), (other_guess, other) in combinations(zip(told, own, strict=True), 2):
            pairs += 1
            right += (guess - other_guess) * (one.gain - other.gain) > 0
    return float(np.mean(errors)), float(np.mean(of_mean)), right, pairs


def _nearest(task: str, advantage: float, transfers: Sequence[MeasuredTransfer]) -> list[MeasuredTransfer]:
    """The transfers whose features had the most similar advantage, of the same task where there are enough."""
    same = [one for one in transfers if one.task == task]
    pool = same if len(same) >= NEAREST else list(transfers)
    return sorted(pool, key=lambda one: (abs(one.advantage - advantage), one.source, one.target))[:NEAREST]
