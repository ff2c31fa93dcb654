"""Several findings in one case: what was said of each, and the metrics of many cases, finding by finding.

A finding that nobody looked for, or that the reader left open, is unknown in that case: it is neither present nor
absent, and counts for nothing. The overall value of a metric is the mean over the findings that can be judged, those
with cases that have it and cases that have not. Where a resample of the bootstrap lacks one side of a finding, it tells
nothing of that finding, whose value on all cases then stands in the mean.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.metrics.base import Metric, Rows, case_number, table_of
from monai_transfer.metrics.classes import SMALLEST, binary_auc
from monai_transfer.metrics.reading import finite_array

__all__ = ["FINDING_METRICS", "average_precision", "difference_from_source", "findings_case", "has_finding"]


def findings_case(probabilities: Any, truth: Any, names: Sequence[str]) -> dict[str, Any]:
    """What was said of each finding of one case.

    Args:
        probabilities: (F,) each from 0 to 1, array or tensor.
        truth: (F,) of 1 (present), 0 (absent) and -1 or NaN (unknown); ``None`` if nothing is known.
        names: F names.

    Returns:
        ``label`` (the present findings, joined by ``|``; "no finding"; "" where all are unknown), ``label_<finding>``
        (1, 0 or NaN) and ``p_<finding>`` for each, ``correct`` (share of the known findings that are right at a
        threshold of one half) and ``log_loss`` (their mean, nats).

    Raises:
        InputError: NaN, no probability, or the number of findings differs.

    >>> row = findings_case([0.9, 0.2, 0.5], [1, 0, -1], ["oedema", "mass", "effusion"])
    >>> row["label"], row["label_effusion"], row["correct"], round(row["log_loss"], 3)
    ('oedema', nan, 1.0, 0.164)
    """
    p = finite_array(probabilities, "prediction").astype(float).reshape(-1)
    if len(p) != len(names):
        raise InputError(
            f"prediction has {len(p)} outputs, there are {len(names)} findings: {', '.join(names)}",
            hint="predict with the network that was made for these findings",
        )
    if p.min() < -1e-6 or p.max() > 1 + 1e-6:
        hint = "apply the sigmoid that the network's last layer lacks"
        raise InputError(f"values from {p.min():.3g} to {p.max():.3g} are no probabilities", hint=hint)
    t = np.full(len(p), math.nan) if truth is None else finite_array(truth, "label", nan=True).astype(float).reshape(-1)
    if len(t) != len(p):
        raise InputError(
            f"the label has {len(t)} findings, the prediction {len(p)}",
            hint="encode the label with the manifest's mapping (EncodeLabelsd)",
        )
    t = np.where((t == 0) | (t == 1), t, math.nan)
    known = ~np.isnan(t)
    present = [name for name, value in zip(names, t, strict=True) if value == 1]
    row: dict[str, Any] = {"label": "|".join(present) or ("no finding" if known.any() else "")}
    row |= {f"label_{name}": float(value) for name, value in zip(names, t, strict=True)}
    row |= {f"p_{name}": float(value) for name, value in zip(names, p, strict=True)}
    said = np.where(t == 1, p, 1 - p)[known]
    row["correct"] = float(((p > 0.5) == (t == 1))[known].mean()) if known.any() else math.nan
    row["log_loss"] = float(-np.log(np.maximum(said, SMALLEST)).mean()) if known.any() else math.nan
    return row


def difference_from_source(
    row: Mapping[str, Any], source: np.ndarray | None, names: Sequence[str], kept: Sequence[str]
) -> dict[str, float]:
    """How far the probability of each kept finding lies from the untouched source's, where the truth is not known.

    Args:
        row: the case's, as :func:`findings_case` gives it.
        source: (F,) the source's probabilities; ``None``: it was not asked.
        names: F names.
        kept: findings that the source knows; NaN where the truth can tell.

    >>> row = {"label_mass": math.nan, "p_mass": 0.75}
    >>> difference_from_source(row, np.array([0.5]), ["mass"], ["mass"])
    {'source_difference_mass': 0.25}
    """
    found = {}
    for number, name in enumerate(names):
        if name in kept:
            told = source is None or not math.isnan(case_number(row[f"label_{name}"]))
            away = math.nan if told or source is None else abs(row[f"p_{name}"] - float(source[number]))
            found[f"source_difference_{name}"] = away
    return found


def has_finding(row: Mapping[str, Any]) -> bool:
    """Whether any finding of a case is known.

    Args:
        row: of ``cases.csv``.

    >>> has_finding({"label": "0;1"}), has_finding({"label": None})  # absent is known, too
    (True, False)
    """
    return row.get("label") not in ("", None)


def average_precision(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision: (n,) scores, (n,) truth as booleans, weights (B, n) -> (B,); NaN without any positive.

    As in scikit-learn: the sum over thresholds of precision times the gain in recall.

    Args:
        score: (n,), larger for the finding.
        positive: (n,), whether a case has it.
        weights: (B, n), how often each case counts in each of B draws.

    >>> average_precision(np.array([0.9, 0.8, 0.1]), np.array([True, False, True]), np.ones((1, 3))).round(3).tolist()
    [0.833]
    """
    order = np.argsort(-score, kind="stable")
    w, ranked = weights[:, order], score[order]
    ends = np.flatnonzero(np.append(np.diff(ranked) != 0, True)) if len(ranked) else np.zeros(0, dtype=int)
    hits, said = np.cumsum(w * positive[order], axis=1)[:, ends], np.cumsum(w, axis=1)[:, ends]
    total = hits[:, -1:] if len(ends) else np.zeros((len(w), 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(said > 0, hits / said, 0.0)
        gain = np.diff(hits, axis=1, prepend=0.0) / total
        return np.where(total[:, 0] > 0, (precision * gain).sum(axis=1), np.nan)


OneFinding = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Scores (n,), truth (n,), weights (B, n) -> (B,)."""


def _by_finding(one: OneFinding) -> Callable[[Rows, np.ndarray], dict[str, np.ndarray]]:
    def of_set(rows: Rows, weights: np.ndarray) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = {}
        for name in [column.removeprefix("label_") for column in rows[0] if column.startswith("label_")]:
            truth = np.array([case_number(row.get(f"label_{name}")) for row in rows])
            known = ~np.isnan(truth)
            positive = truth[known] == 1
            if positive.any() and not positive.all():  # else this finding cannot be judged here
                score = np.array([case_number(row[f"p_{name}"]) for row in rows])[known]
                values[name] = one(score, positive, np.asarray(weights, dtype=float)[:, known])
        if not values:
            return {"": np.full(len(weights), math.nan)}
        each = np.stack(list(values.values()))
        return {"": np.where(np.isnan(each), each[:, :1], each).mean(axis=0)} | values

    return of_set


def _share(wanted: bool) -> OneFinding:
    """Of the cases with (or without) a finding, the share that was called so at a threshold of one half."""

    def one(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        chosen = positive == wanted
        total = weights[:, chosen].sum(axis=1)
        right = weights[:, chosen] @ ((score[chosen] > 0.5) == wanted)
        return np.where(total > 0, right / np.where(total > 0, total, 1.0), math.nan)

    return one


def _balanced(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)
        return (_share(True)(score, positive, weights) + _share(False)(score, positive, weights)) / 2


def _prevalence(rows: Rows) -> dict[str, float]:
    """Of each finding that can be judged the share of cases that have it, and their mean."""
    found = {}
    for name in [column.removeprefix("label_") for column in rows[0] if column.startswith("label_")]:
        truth = np.array([case_number(row.get(f"label_{name}")) for row in rows])
        truth = truth[~np.isnan(truth)]
        if truth.any() and not truth.all():
            found[name] = float(truth.mean())
    return {"": float(np.mean(list(found.values()))), **found} if found else {}


_RATE: dict[str, Any] = {"better": 1, "low": 0.0, "high": 1.0}
_MEAN = "averaged over the findings that can be judged"

FINDING_METRICS = table_of(
    [
        Metric(
            "auc",
            "AUC",
            "Probability that a case with the finding gets a higher score than one without: 1 is perfect, 0.5 is "
            f"chance; {_MEAN}.",
            of_set=_by_finding(binary_auc),
            chance=0.5,
            resamples=1000,
            **_RATE,
        ),
        Metric(
            "ap",
            "average precision",
            "How pure the list of cases is while it is read from the surest on until those with the finding are found: "
            f"1 is perfect, the share of cases with the finding is chance; {_MEAN}.",
            of_set=_by_finding(average_precision),
            chance_of=_prevalence,
            resamples=1000,
            **_RATE,
        ),
        Metric(
            "balanced_accuracy",
            "balanced accuracy",
            f"Mean of sensitivity and specificity: 1 is perfect, 0.5 is chance; {_MEAN}.",
            of_set=_by_finding(_balanced),
            chance=0.5,
            **_RATE,
        ),
        Metric(
            "sensitivity",
            "sensitivity",
            f"Share of the cases with the finding that were called so (probability above one half); {_MEAN}.",
            of_set=_by_finding(_share(True)),
            **_RATE,
        ),
        Metric(
            "specificity",
            "specificity",
            f"Share of the cases without the finding that were called so (probability up to one half); {_MEAN}.",
            of_set=_by_finding(_share(False)),
            **_RATE,
        ),
        Metric(
            "accuracy",
            "accuracy",
            "Share of a case's known findings that were called right.",
            column="correct",
            overview=False,
            **_RATE,
        ),
        Metric("log_loss", "log loss", "Penalty for confident mistakes: 0 is perfect.", better=-1, low=0.0),
        Metric(
            "source_difference",
            "distance to the untouched source's probability",
            "How far the probability lies from the untouched source's, in cases in which the finding is not known: it "
            "says how much of the source was kept, not what is right.",
            better=-1,
            low=0.0,
            high=1.0,
            comparable=False,  # the source is at no distance from itself
        ),
    ]
)
"""Of cases with several findings."""
