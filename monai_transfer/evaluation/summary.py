"""From the rows of many cases to one value per metric, with a 95 % interval over patients.

Patients are the unit of chance: the bootstrap draws patients, and all cases of one patient come or stay together. The
point estimates are the standard definitions over all cases (tested against scikit-learn).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from monai_transfer.errors import InputError
from monai_transfer.evaluation.localization_metrics import MEANS, localization_set, set_metrics
from monai_transfer.evaluation.metrics import PRIMARY

__all__ = ["NOT_METRICS", "Estimate", "case_number", "class_scores", "roc_auc", "summarise"]

#: Columns of a row of cases that are not metrics.
NOT_METRICS = ("case", "patient", "site", "label", "prediction", "error")

_RESAMPLES = 2000
_SEED = 20240501


class Estimate(NamedTuple):
    """A mean over cases, the 95 % interval over patients (NaN if it cannot be had), and how many patients gave it."""

    mean: float
    low: float
    high: float
    n_patients: int


def summarise(cases: Iterable[Mapping[str, Any]], task: str, intervals: bool = True) -> dict[str, Estimate]:
    """Every metric of a test set.

    Segmentation: the mean of each per-case metric over the cases where it is not missing. Classification: accuracy,
    balanced accuracy, precision, recall and F1 (macro, and ``_<class>`` for each), AUC (one class against the rest,
    macro for more than two), log loss. Regression: MAE, RMSE, R2. Localization: FROC score, sensitivity, average
    precision, false positives, box IoU, pointing game.

    Intervals: BCa bootstrap over patients for means; percentile bootstrap over patients for all others. With one
    patient there is no interval (NaN).

    Args:
        cases: rows of ``segmentation_case``, ``classification_case`` and so on, each with ``patient``.
        task: of ``report.metrics.TASKS``.
        intervals: False leaves them out (NaN), which is much faster.

    Raises:
        InputError: no cases, or a task that is not known.
    """
    rows = list(cases)
    if task not in PRIMARY:
        raise InputError(f"task {task!r} is not one of {', '.join(PRIMARY)}")
    if not rows:
        raise InputError("there are no cases to summarise")
    groups = _Groups([str(row["patient"]) for row in rows], _RESAMPLES if intervals else 0)
    if task == "classification":
        return _classification(rows, groups)
    if task == "regression":
        return _regression(rows, groups)
    if task == "localization":
        return _localization(rows, groups)
    names = [name for name in rows[0] if name not in NOT_METRICS]
    return {name: _mean(np.array([case_number(row.get(name)) for row in rows]), groups) for name in names}


def case_number(value: Any) -> float:
    """A cell as a number; an empty cell is NaN."""
    return float("nan") if value is None or value == "" else float(value)


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

    def weights(self) -> np.ndarray:
        """(1 + resamples, n_patients): the data as they are, then how often each patient was drawn."""
        drawn = np.random.default_rng(_SEED).multinomial(self.n, np.full(self.n, 1 / self.n), size=self.resamples)
        return np.vstack([np.ones(self.n, dtype=drawn.dtype), drawn])


def _mean(values: np.ndarray, groups: _Groups) -> Estimate:
    keep = ~np.isnan(values)
    if not keep.any():
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    values, groups = values[keep], groups.subset(keep)
    sums, counts = groups.sums(values), groups.sums(np.ones(len(values)))
    mean = float(sums.sum() / counts.sum())
    if groups.n < 2 or not groups.resamples:
        return Estimate(mean, float("nan"), float("nan"), groups.n)
    if np.ptp(sums / counts) < 1e-12:  # every patient has the same mean: nothing varies, and BCa divides by zero
        return Estimate(mean, mean, mean, groups.n)

    def ratio(total: np.ndarray, count: np.ndarray, axis: int = -1) -> np.ndarray:
        return total.sum(axis=axis) / count.sum(axis=axis)

    low = high = float("nan")
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
    return Estimate(mean, low, high, groups.n)


def _percentile(values: np.ndarray, n_patients: int) -> Estimate:
    """Values of a statistic: first on the data, then on each resample; resamples that lack a class are left out."""
    drawn = values[1:][np.isfinite(values[1:])]
    if n_patients < 2 or not np.isfinite(values[0]) or len(drawn) < 100:
        return Estimate(float(values[0]), float("nan"), float("nan"), n_patients)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(values[0]), float(low), float(high), n_patients)


def _localization(rows: list[Mapping[str, Any]], groups: _Groups) -> dict[str, Estimate]:
    weights = groups.weights()[:1001, groups.of_case]  # each resample goes through the curve by itself
    result = {name: _percentile(localization_set(rows, name, weights), groups.n) for name in set_metrics(rows)}
    means = {name: _mean(np.array([case_number(row.get(name)) for row in rows]), groups) for name in MEANS}
    return {"froc": result.pop("froc")} | means | result


def _regression(rows: list[Mapping[str, Any]], groups: _Groups) -> dict[str, Estimate]:
    truth = np.array([case_number(row["label"]) for row in rows])
    keep = ~np.isnan(truth)
    if not keep.any():
        raise InputError("no test case has a known label")
    groups, truth = groups.subset(keep), truth[keep]
    error = np.array([case_number(row["prediction"]) for row in rows])[keep] - truth
    centre = truth - truth.mean()  # the variance of the truth, without losing digits
    sums = groups.weights() @ groups.sums(np.stack([np.ones_like(truth), error**2, centre, centre**2], axis=1))
    n, squared, first, second = sums.T
    with np.errstate(all="ignore"):
        variance = second - first**2 / n
        r2 = np.where(variance > 1e-12 * max(float(second[0]), 1e-300), 1 - squared / variance, np.nan)
        rmse = np.sqrt(squared / n)
    return {
        "mae": _mean(np.abs(error), groups),
        "rmse": _percentile(rmse, groups.n),
        "r2": _percentile(r2, groups.n),
    }


def _classification(rows: list[Mapping[str, Any]], groups: _Groups) -> dict[str, Estimate]:
    classes = [name.removeprefix("p_") for name in rows[0] if name.startswith("p_")]
    keep = np.array([row["label"] not in ("", None) for row in rows])
    if not keep.any():
        raise InputError("no test case has a known label")
    rows, groups = [row for row, k in zip(rows, keep, strict=True) if k], groups.subset(keep)
    index = {name: i for i, name in enumerate(classes)}
    truth = np.array([index[str(row["label"])] for row in rows])
    predicted = np.array([index[str(row["prediction"])] for row in rows])
    p = np.array([[case_number(row[f"p_{name}"]) for name in classes] for row in rows])
    cells = np.zeros((len(rows), len(classes), len(classes)))
    cells[np.arange(len(rows)), truth, predicted] = 1.0
    weights = groups.weights()
    confusion = np.tensordot(weights.astype(float), groups.sums(cells), axes=1)
    result = {name: _percentile(value, groups.n) for name, value in class_scores(confusion, classes).items()}
    result["accuracy"] = _mean((truth == predicted).astype(float), groups)
    result["log_loss"] = _mean(np.array([case_number(row["log_loss"]) for row in rows]), groups)
    weights = weights[:1001]  # ranking costs more than counting
    per_case = np.concatenate([roc_auc(p, truth, part[:, groups.of_case]) for part in np.array_split(weights, 20)])
    result["auc"] = _percentile(per_case, groups.n)
    first = ["auc", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "log_loss"]
    return {name: result[name] for name in first} | result


def class_scores(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Scores from confusion matrices (..., truth, prediction): macro means over the classes that occur, and each class.

    As in scikit-learn, a class that was never predicted has precision 0, and one that is predicted but never true has
    recall 0; a class that is neither true nor predicted does not count. Balanced accuracy is the mean recall over the
    true classes.
    """
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, said = confusion.sum(-1), confusion.sum(-2)
    occurs = (true + said) > 0
    each = {}
    for name, above, below in (("precision", hit, said), ("recall", hit, true), ("f1", 2 * hit, true + said)):
        each[name] = np.where(occurs, above / np.maximum(below, 1e-12), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)  # the mean of no class at all is NaN
        result = {name: np.nanmean(value, axis=-1) for name, value in each.items()}
        result["balanced_accuracy"] = np.nanmean(np.where(true > 0, each["recall"], np.nan), axis=-1)
    for i, label in enumerate(classes):
        result |= {f"{name}_{label}": value[..., i] for name, value in each.items()}
    return result


def roc_auc(p: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve: (n, C) probabilities, (n,) class indices, weights (B, n) of the cases -> (B,).

    Two classes: of the second one. More: the mean over one class against the rest, for the classes that are both
    true and not true of some case. NaN where only one class is left. Ties count one half.
    """
    w = np.ones((1, len(truth))) if weights is None else np.asarray(weights, dtype=float)
    columns = [1] if p.shape[1] == 2 else list(range(p.shape[1]))
    areas = np.stack([_binary_auc(p[:, c], truth == c, w) for c in columns])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)
        return np.nanmean(areas, axis=0)


def _binary_auc(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order = np.argsort(score, kind="stable")
    w, is_positive = weights[:, order], positive[order]
    up, down = w * is_positive, w * ~is_positive
    below = np.concatenate([np.zeros((len(w), 1)), np.cumsum(down, axis=1)], axis=1)
    first = np.searchsorted(score[order], score[order], side="left")  # ties share one place
    last = np.searchsorted(score[order], score[order], side="right")
    wins = (up * 0.5 * (below[:, first] + below[:, last])).sum(axis=1)
    total = up.sum(axis=1) * down.sum(axis=1)
    return np.where(total > 0, wins / np.where(total > 0, total, 1.0), np.nan)
