"""One value per patient, so that two arms can be compared patient by patient.

For a metric that is a mean over cases (Dice, accuracy, absolute error, log loss ...) a patient's value is the mean over
the patient's cases. A metric of the whole set (AUC, F1, RMSE ...) has no value for one patient; here its jackknife
pseudo-value takes that place (Miller, Biometrika 61, 1974; for paired AUCs Hanley and Hajian-Tilaki, Academic Radiology
4, 1997): with P patients, P times the metric of all minus (P - 1) times the metric without that patient. Their mean is
the metric, their variance over patients its sampling variance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.evaluation.summary import columns_of
from monai_transfer.metrics.base import MISSING, Metric, case_number
from monai_transfer.tasks import Task, get_task

__all__ = ["available_metrics", "fill_right", "patient_values"]


def available_metrics(rows: Sequence[Mapping[str, Any]], task: str | Task) -> list[str]:
    """The metrics that runs with these cases can be compared by, the overall ones first.

    Args:
        rows: of ``cases.csv``.
        task: the task or its name.

    >>> available_metrics([{"patient": "a", "label": 1.0, "prediction": 2.0, "absolute_error": 1.0}], "regression")
    ['mae', 'rmse', 'r2']
    """
    kind = get_task(task)
    known = [row for row in rows if kind.known(row)] or list(rows)
    found: list[Metric] = []
    for metric in kind.metrics.values():
        if not metric.comparable:
            continue
        if metric.of_set is not None:
            found += [metric.of_part(part) for part in metric.of_set(known, np.ones((1, len(known))))]
        found += columns_of(metric, rows[0])
    return [m.full_name for m in found if not m.part] + [m.full_name for m in found if m.part]


def fill_right(values: np.ndarray, metric: Metric) -> np.ndarray:
    """Cases where a structure is absent: (runs, cases) values of a metric, NaN = absent and not predicted.

    Where some run predicted the absent structure (and got the worst value), a run that rightly predicted nothing gets
    the best one, else that false positive would leave the comparison together with the case. A case that is missing in
    every run stays so. A metric without a best value, or of which an absent class is no gap, is left as it is.

    Args:
        values: (runs, cases).
        metric: whose values they are.

    In the second case the structure is absent; one run predicted it (0), the other rightly did not:

    >>> from monai_transfer.metrics import MASK_METRICS
    >>> fill_right(np.array([[0.8, 0.0], [0.7, np.nan]]), MASK_METRICS["dice"]).tolist()
    [[0.8, 0.0], [0.7, 1.0]]
    """
    if metric.of_masks is None or metric.absent != MISSING or not math.isfinite(metric.best):
        return values
    missing = np.isnan(values)
    return np.where(missing & ~missing.all(axis=0), metric.best, values)


def patient_values(
    rows: Sequence[Mapping[str, Any]], metric: str, task: str | Task, values: np.ndarray | None = None
) -> dict[str, float]:
    """Patient -> value of ``metric``; NaN where it is missing.

    Args:
        rows: one run's cases.
        metric: one of :func:`available_metrics`.
        task: of the run.
        values: per-case values to use for a mean-type metric instead of its column (see :func:`fill_right`).

    Raises:
        InputError: the metric is of the whole set, and these cases do not give it.

    >>> rows = [{"patient": p, "dice": d} for p, d in (("a", 0.5), ("a", 0.7), ("b", 0.9))]
    >>> patient_values(rows, "dice", "segmentation")
    {'a': 0.6, 'b': 0.9}
    """
    kind = get_task(task)
    own = kind.metric(metric)
    patients = np.array([str(row["patient"]) for row in rows])
    names, of_case = np.unique(patients, return_inverse=True)
    if own.of_set is None:
        if values is None:
            values = np.array([case_number(row[own.case_column]) for row in rows])
        keep = ~np.isnan(values)
        sums = np.bincount(of_case[keep], values[keep], len(names))
        counts = np.bincount(of_case[keep], minlength=len(names))
        means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        return dict(zip(names.tolist(), means.tolist(), strict=True))
    known = np.array([kind.known(row) for row in rows])
    rows, of_case = [row for row, k in zip(rows, known, strict=True) if k], of_case[known]
    n = len(names)
    without = 1.0 - (np.arange(n)[:, None] == of_case[None, :])  # one row per patient left out
    found = own.of_set(rows, np.vstack([np.ones((1, len(rows))), without]))
    if own.part not in found:
        raise InputError(f"these cases have no {own.heading}", hint="see the columns of cases.csv")
    total, left = found[own.part][0], found[own.part][1:]
    pseudo = n * total - (n - 1) * left
    if not np.all(np.isfinite(pseudo)):  # e.g. one patient carries all cases of a class: no patient has a value
        pseudo = np.full(n, np.nan)
    return dict(zip(names.tolist(), pseudo.tolist(), strict=True))
