"""From the rows of many cases to one value per metric, with a 95 % interval over patients.

Patients are the unit of chance: the bootstrap draws patients, and all cases of one patient come or stay together. The
point estimates are the standard definitions over all cases (tested against scikit-learn). What is measured stands in
the task's table of metrics; here it is only summed up.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from monai_transfer.errors import InputError
from monai_transfer.metrics.base import Metric, case_number
from monai_transfer.tasks import Task, get_task

__all__ = ["Estimate", "columns_of", "summarise"]

_RESAMPLES = 2000
_SEED = 20240501


class Estimate(NamedTuple):
    """A mean over cases, the 95 % interval over patients (NaN if it cannot be had), and how many patients gave it.

    >>> rows = [{"case": f"c{i}", "patient": f"p{i}", "dice": 0.8 + 0.1 * (i % 2)} for i in range(8)]
    >>> found = summarise(rows, "segmentation")["dice"]
    >>> round(found.mean, 2), found.low < found.mean < found.high, found.n_patients
    (0.85, True, 8)
    """

    mean: float
    low: float
    high: float
    n_patients: int


def summarise(cases: Iterable[Mapping[str, Any]], task: str | Task, intervals: bool = True) -> dict[str, Estimate]:
    """Every metric of a test set: those of the task, first overall, then by class.

    Intervals: BCa bootstrap over patients for means over cases; percentile bootstrap over patients for metrics of the
    whole set, such as AUC. They are cut to the metric's bounds. With one patient there is no interval (NaN).

    Args:
        cases: rows as ``cases.csv`` has them, each with ``patient``; values or their text.
        task: a task or its name.
        intervals: False leaves them out (NaN), which is much faster.

    Raises:
        InputError: no cases, none whose truth is known, or a task that is not known.

    >>> rows = [{"patient": "a", "dice": 0.5}, {"patient": "b", "dice": 0.7}]
    >>> summarise(rows, "segmentation", intervals=False)["dice"].mean
    0.6
    """
    rows, kind = list(cases), get_task(task)
    if not rows:
        raise InputError("there are no cases to summarise", hint="look at the test split of the manifest")
    rows = [row for row in rows if kind.known(row)]
    if not rows:
        raise InputError("no test case has a known label", hint="a test set needs labels; predict needs none")
    groups = _Groups([str(row["patient"]) for row in rows], _RESAMPLES if intervals else 0)
    result: dict[str, Estimate] = {}
    for metric in kind.metrics.values():
        if metric.of_set is not None:
            weights = groups.weights(metric.resamples)[:, groups.of_case]
            for part, values in metric.of_set(rows, weights).items():
                result[metric.of_part(part).full_name] = _percentile(values, groups.n, metric)
        for own in columns_of(metric, rows[0]):
            values = np.array([case_number(row.get(own.case_column)) for row in rows])
            result[own.full_name] = _mean(values, groups, own)
    overall = [name for name in result if name in kind.metrics]
    return {name: result[name] for name in overall} | result


def columns_of(metric: Metric, row: Mapping[str, Any]) -> list[Metric]:
    """A mean-type metric, overall and of each class, as far as a row has its columns; nothing for one of the set.

    Args:
        metric: from a task's table.
        row: of ``cases.csv``.

    >>> from monai_transfer.metrics import MASK_METRICS
    >>> row = {"case": "c1", "dice": 0.8, "dice_liver": 0.9, "dice_spleen": 0.7}
    >>> [metric.full_name for metric in columns_of(MASK_METRICS["dice"], row)]
    ['dice', 'dice_liver', 'dice_spleen']
    """
    if metric.of_set is not None:
        return []
    stem = metric.case_column
    parts = [name[len(stem) + 1 :] for name in row if name.startswith(f"{stem}_")]
    return [metric] * (stem in row) + [metric.of_part(part) for part in parts]


class _Groups:
    """Cases by patient, and one fixed set of bootstrap weights (how often each patient was drawn)."""

    def __init__(self, patients: Sequence[str], resamples: int) -> None:
        self.resamples = resamples
        self.names, self.of_case = np.unique(np.asarray(patients), return_inverse=True)
        self.n = len(self.names)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over each patient's cases; values (n_cases, ...) -> (n_patients, ...)."""
        total = np.zeros((self.n, *values.shape[1:]))
        np.add.at(total, self.of_case, values)
        return total

    def subset(self, keep: np.ndarray) -> _Groups:
        return _Groups(self.names[self.of_case[keep]].tolist(), self.resamples)

    def weights(self, resamples: int) -> np.ndarray:
        """(1 + resamples, n_patients): the data as they are, then how often each patient was drawn."""
        size = min(resamples, self.resamples)
        drawn = np.random.default_rng(_SEED).multinomial(self.n, np.full(self.n, 1 / self.n), size=size)
        return np.vstack([np.ones(self.n, dtype=drawn.dtype), drawn])


def _mean(values: np.ndarray, groups: _Groups, metric: Metric) -> Estimate:
    keep = ~np.isnan(values)
    if not keep.any():
        return Estimate(math.nan, math.nan, math.nan, 0)
    values, groups = values[keep], groups.subset(keep)
    sums, counts = groups.sums(values), groups.sums(np.ones(len(values)))
    mean = float(sums.sum() / counts.sum())
    if groups.n < 2 or not groups.resamples:
        return Estimate(mean, math.nan, math.nan, groups.n)
    if np.ptp(sums / counts) < 1e-12:  # every patient has the same mean: nothing varies, and BCa divides by zero
        return Estimate(mean, mean, mean, groups.n)

    def ratio(total: np.ndarray, count: np.ndarray, axis: int = -1) -> np.ndarray:
        return total.sum(axis=axis) / count.sum(axis=axis)

    low = high = math.nan
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # BCa warns where it degenerates; the percentile interval takes over
            interval = stats.bootstrap(
                (sums, counts), ratio, paired=True, vectorized=True, n_resamples=_RESAMPLES, method=method,
                rng=np.random.default_rng(_SEED),
            ).confidence_interval  # fmt: skip
        low, high = float(interval.low), float(interval.high)
        if np.isfinite(low) and np.isfinite(high):
            break
    return Estimate(mean, *metric.clip(low, high), groups.n)


def _percentile(values: np.ndarray, n_patients: int, metric: Metric) -> Estimate:
    """Values of a statistic: first on the data, then on each resample; resamples that lack a class are left out."""
    drawn = values[1:][np.isfinite(values[1:])]
    if n_patients < 2 or not np.isfinite(values[0]) or len(drawn) < 100:
        return Estimate(float(values[0]), math.nan, math.nan, n_patients)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(values[0]), *metric.clip(float(low), float(high)), n_patients)
