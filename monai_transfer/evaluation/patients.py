"""One value per patient, so that two arms can be compared patient by patient.

For a metric that is a mean over cases (Dice, accuracy, absolute error, log loss ...) a patient's value is the mean over
the patient's cases. A metric of the whole set (AUC, F1, RMSE ...) has no value for one patient; here its jackknife
pseudo-value takes that place (Miller, Biometrika 61, 1974; for paired AUCs Hanley and Hajian-Tilaki, Academic Radiology
4, 1997): with P patients, P times the metric of all minus (P - 1) times the metric without that patient. Their mean is
the metric, their variance over patients its sampling variance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.evaluation.localization_metrics import MEANS, SETS, localization_set
from monai_transfer.evaluation.metrics import TASKS
from monai_transfer.evaluation.summary import NOT_METRICS, case_number, class_scores, roc_auc

__all__ = ["available_metrics", "case_column", "fill_right", "is_mean", "patient_values"]

_COLUMN = {"accuracy": "correct", "mae": "absolute_error"}
_OF_CLASSES = ("balanced_accuracy", "precision", "recall", "f1")


def available_metrics(columns: Sequence[str], task: str) -> list[str]:
    """The metrics that a table of cases with these columns can be compared by."""
    if task not in TASKS:
        raise InputError(f"task {task!r} is not one of {', '.join(TASKS)}")
    if task == "classification":
        return ["auc", "accuracy", *_OF_CLASSES, "log_loss"]
    if task == "regression":
        return ["mae", "rmse", "r2"]
    if task == "localization":
        return [*SETS, *MEANS]
    return [name for name in columns if name not in NOT_METRICS and not name.startswith(("volume_true", "area_true"))]


def is_mean(metric: str, task: str) -> bool:
    """Whether the metric is a mean over cases."""
    return task == "segmentation" or metric in ("accuracy", "log_loss", "mae", *MEANS)


def case_column(metric: str) -> str:
    """The column of cases.csv that a mean-type metric is the mean of."""
    return _COLUMN.get(metric, metric)


def fill_right(values: np.ndarray, metric: str) -> np.ndarray:
    """Cases where a structure is absent: (runs, cases) values of a segmentation metric, NaN = absent and not predicted.

    Where some run predicted the absent structure (and got the worst value), a run that rightly predicted nothing gets
    the best one, else that false positive would leave the comparison together with the case. A case that is missing in
    every run stays so.
    """
    best = 0.0 if metric.startswith("hd95") else 1.0
    if not metric.startswith(("hd95", "dice", "surface_dice")):
        return values
    missing = np.isnan(values)
    return np.where(missing & ~missing.all(axis=0), best, values)


def patient_values(
    rows: Sequence[Mapping[str, Any]], metric: str, task: str, values: np.ndarray | None = None
) -> dict[str, float]:
    """Patient -> value of ``metric``; NaN where it is missing.

    Args:
        rows: one run's cases.
        metric: one of :func:`available_metrics`.
        task: of the run.
        values: per-case values to use for a mean-type metric instead of its column (see :func:`fill_right`).
    """
    patients = np.array([str(row["patient"]) for row in rows])
    names, of_case = np.unique(patients, return_inverse=True)
    if is_mean(metric, task):
        if values is None:
            values = np.array([case_number(row[case_column(metric)]) for row in rows])
        keep = ~np.isnan(values)
        sums = np.bincount(of_case[keep], values[keep], len(names))
        counts = np.bincount(of_case[keep], minlength=len(names))
        means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        return dict(zip(names.tolist(), means.tolist(), strict=True))
    known = np.array([row.get("label") not in ("", None) or task == "localization" for row in rows])
    rows, of_case = [row for row, k in zip(rows, known, strict=True) if k], of_case[known]
    n = len(names)
    without = 1.0 - (np.arange(n)[:, None] == of_case[None, :])  # one row per patient left out
    total = _set_metric(rows, metric, np.ones((1, len(rows))))[0]
    pseudo = n * total - (n - 1) * _set_metric(rows, metric, without)
    if not np.all(np.isfinite(pseudo)):  # e.g. one patient carries all cases of a class: no patient has a value
        pseudo = np.full(n, np.nan)
    return dict(zip(names.tolist(), pseudo.tolist(), strict=True))


def _set_metric(rows: Sequence[Mapping[str, Any]], metric: str, weights: np.ndarray) -> np.ndarray:
    """A metric of the whole set, for each row of weights (B, n_cases) -> (B,)."""
    if metric in SETS:
        return localization_set(rows, metric, weights)
    if metric in ("rmse", "r2"):
        truth = np.array([case_number(row["label"]) for row in rows])
        error = np.array([case_number(row["prediction"]) for row in rows]) - truth
        n = weights.sum(axis=1)
        squared = weights @ error**2
        if metric == "rmse":
            return np.sqrt(squared / n)
        centre = truth - truth.mean()
        variance = weights @ centre**2 - (weights @ centre) ** 2 / n
        return np.where(variance > 1e-12, 1 - squared / np.where(variance > 1e-12, variance, 1.0), np.nan)
    classes = [name.removeprefix("p_") for name in rows[0] if name.startswith("p_")]
    index = {name: i for i, name in enumerate(classes)}
    truth = np.array([index[str(row["label"])] for row in rows])
    if metric == "auc":
        p = np.array([[case_number(row[f"p_{name}"]) for name in classes] for row in rows])
        return np.concatenate([roc_auc(p, truth, part) for part in np.array_split(weights, 1 + weights.size // 2**22)])
    cells = np.zeros((len(rows), len(classes) ** 2))
    predicted = np.array([index[str(row["prediction"])] for row in rows])
    cells[np.arange(len(rows)), truth * len(classes) + predicted] = 1.0
    confusion = (weights @ cells).reshape(-1, len(classes), len(classes))
    return class_scores(confusion, classes)[metric]
