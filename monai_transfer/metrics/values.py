"""A predicted quantity beside the true one, and the metrics of many."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.metrics.base import Metric, Rows, case_number, table_of
from monai_transfer.metrics.reading import finite_array

__all__ = ["VALUE_METRICS", "has_value", "regression_case"]


def regression_case(prediction: Any, truth: float | None) -> dict[str, float]:
    """A predicted quantity beside the true one: ``label``, ``prediction``, ``error`` (prediction - label),
    ``absolute_error`` and ``squared_error``, in the quantity's own unit; NaN where the truth is unknown (``None``).

    Args:
        prediction: one number, or an array or tensor of one.
        truth: in the same unit.

    Raises:
        InputError: the prediction is NaN, infinite or not one number.

    >>> regression_case(2.5, 3.0)["error"]
    -0.5
    """
    p = finite_array(prediction, "prediction").astype(float).reshape(-1)
    if p.size != 1:
        raise InputError(
            f"prediction has {p.size} values where one quantity is asked for",
            hint="the network's output is one channel",
        )
    true = math.nan if truth is None else float(finite_array(truth, "label", nan=True).reshape(-1)[0])
    error = float(p[0]) - true
    return {
        "label": true,
        "prediction": float(p[0]),
        "error": error,
        "absolute_error": abs(error),
        "squared_error": error**2,
    }


def has_value(row: Mapping[str, Any]) -> bool:
    """Whether a case has a true value.

    Args:
        row: of ``cases.csv``.

    >>> has_value({"label": "0.0"}), has_value({"label": ""})  # zero is a value
    (True, False)
    """
    return not math.isnan(case_number(row.get("label")))


def _truth(rows: Rows) -> np.ndarray:
    return np.array([case_number(row["label"]) for row in rows])


def _errors(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    truth = _truth(rows)
    return truth, np.array([case_number(row["prediction"]) for row in rows]) - truth


def _rmse(rows: Rows, weights: np.ndarray) -> dict[str, np.ndarray]:
    _, error = _errors(rows)
    with np.errstate(all="ignore"):
        return {"": np.sqrt(weights @ error**2 / weights.sum(axis=1))}


def _r2(rows: Rows, weights: np.ndarray) -> dict[str, np.ndarray]:
    truth, error = _errors(rows)
    centre = truth - truth.mean()  # the variance of the truth, without losing digits
    n, total = weights.sum(axis=1), float((centre**2).sum())
    with np.errstate(all="ignore"):
        variance = weights @ centre**2 - (weights @ centre) ** 2 / n
        return {"": np.where(variance > 1e-12 * max(total, 1e-300), 1 - (weights @ error**2) / variance, np.nan)}


VALUE_METRICS = table_of(
    [
        Metric(
            "mae",
            "mean absolute error",
            "Average distance from the true value, in its own unit: 0 is perfect.",
            better=-1,
            low=0.0,
            column="absolute_error",
            chance_of=lambda rows: {"": float(np.abs(_truth(rows) - np.median(_truth(rows))).mean())},
        ),
        Metric(
            "rmse",
            "RMSE",
            "Like the mean absolute error, with large errors weighing more: 0 is perfect.",
            better=-1,
            low=0.0,
            of_set=_rmse,
            chance_of=lambda rows: {"": float(_truth(rows).std())},
        ),
        Metric(
            "r2",
            "R²",
            "Share of the variation that is explained: 1 is perfect, 0 is no better than always naming the mean.",
            better=1,
            high=1.0,
            of_set=_r2,
            chance=0.0,
        ),
    ]
)
"""Of a regression's cases."""
