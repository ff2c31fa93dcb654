"""``Metric``: a number by which predictions are judged, described once: everything that names one reads this.

A new metric is one entry in the table of its kind of rows (``masks.MASK_METRICS``, ``classes.CLASS_METRICS``,
``values.VALUE_METRICS``, ``boxes.BOX_METRICS``, ``findings.FINDING_METRICS``): the recorder computes it, summaries and
comparisons give its intervals, the report its title, unit, direction and sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["COUNTS", "LENGTH", "MISSING", "Metric", "Rows", "case_number", "find_metric"]

Rows = Sequence[Mapping[str, Any]]
"""Cases as in ``cases.csv``: values or their text, by column."""

LENGTH = "mm"
"""Unit of lengths; it reads ``px`` where the images have no physical size."""

MISSING, COUNTS = "missing", "counts"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: its column in ``cases.csv`` and ``summary.json``; of one class ``<name>_<class>``.
        title: for people, without unit.
        sentence: what it means, for a clinician.
        better: 1: larger values are better; -1: smaller; 0: neither, so no verdict can be had from it.
        unit: such as ``mm`` or ``ml``; empty where it has none, or the predicted quantity's own.
        low, high: bounds of its values; intervals are cut to them, and to nothing else.
        absent: of a class that is in neither truth nor prediction: ``missing`` (no value: the case leaves the mean; in
            a comparison where another run wrongly predicted it, the right run gets the best value) or ``counts`` (it
            has a value like any other).
        column: of ``cases.csv`` that it is the mean of, where that is not its name.
        of_set: for a metric of the whole set: from rows and weights (B, cases) to its values (B,), by part: ``""`` for
            the overall one, else a class. None: it is the mean of its column over cases.
        of_masks: for a segmentation: from a ``MaskPair`` of one case and class to its value.
        averaged: whether the mean over a case's classes is a value, too.
        overview: whether a report's table of further metrics shows it.
        of_prediction: it tells of the prediction alone, so it has a value where the truth is not known.
        of_truth: it tells of the truth alone.
        comparable: whether runs can be compared by it (the true volume is the same for all).
        chance: the value of guessing, where it has one.
        chance_of: where that depends on the cases: from rows to the value of giving every case the same answer, by part
            as in ``of_set``.
        resamples: of its bootstrap.
        part: the class, for the metric of one class.

    >>> depth = Metric("depth", "depth", "How deep.", better=-1, unit="mm", low=0.0)
    >>> depth.of_part("liver").heading, depth.clip(-1.0, 3.0)
    ('depth (mm), liver', (0.0, 3.0))
    """

    name: str
    title: str
    sentence: str
    better: int
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    absent: str = MISSING
    column: str = ""
    of_set: Callable[[Rows, np.ndarray], Mapping[str, np.ndarray]] | None = None
    of_masks: Callable[[Any], float] | None = None
    averaged: bool = False
    overview: bool = True
    of_prediction: bool = False
    of_truth: bool = False
    comparable: bool = True
    chance: float | None = None
    chance_of: Callable[[Rows], Mapping[str, float]] | None = None
    resamples: int = 2000
    part: str = ""

    @property
    def full_name(self) -> str:
        """With its class: ``dice_liver``."""
        return f"{self.name}_{self.part}" if self.part else self.name

    @property
    def case_column(self) -> str:
        """The column of ``cases.csv`` that a mean-type metric is the mean of."""
        return (self.column or self.name) + (f"_{self.part}" if self.part else "")

    @property
    def heading(self) -> str:
        """Title, unit and class, for a table's head or an axis."""
        text = f"{self.title} ({self.unit})" if self.unit else self.title
        return f"{text}, {self.part}" if self.part else text

    @property
    def direction(self) -> str:
        """Which values are better, in words; empty where neither are."""
        return {1: "larger is better", -1: "smaller is better", 0: ""}[self.better]

    @property
    def best(self) -> float:
        """The bound on its better side, infinite or NaN where there is none."""
        return {1: self.high, -1: self.low, 0: math.nan}[self.better]

    @property
    def worst(self) -> float:
        """The bound on its worse side, infinite or NaN where there is none."""
        return {1: self.low, -1: self.high, 0: math.nan}[self.better]

    def of_part(self, part: str) -> Metric:
        """The same metric of one class."""
        return replace(self, part=part)

    def guessing(self, rows: Rows) -> float | None:
        """The value of guessing on these cases, whose truth is known; None where there is none.

        >>> Metric("auc", "AUC", "", 1, chance=0.5).guessing([])
        0.5
        """
        if self.chance_of is None:
            return self.chance
        return self.chance_of(rows).get(self.part) if rows else None

    def in_unit_of_length(self, unit: str) -> Metric:
        """The same metric where lengths are in ``unit``, such as ``px``."""
        return replace(self, unit=unit) if self.unit == LENGTH else self

    def clip(self, low: float, high: float) -> tuple[float, float]:
        """An interval cut to the metric's bounds."""
        return max(low, self.low), min(high, self.high)


def find_metric(table: Mapping[str, Metric], name: str) -> Metric:
    """The metric of a column: ``dice_liver`` is the metric ``dice`` of the part ``liver``.

    A column that no metric describes has no unit, no bounds and no direction.

    Args:
        table: metrics by name.
        name: of a column in ``cases.csv``.

    >>> from monai_transfer.metrics.masks import MASK_METRICS
    >>> find_metric(MASK_METRICS, "surface_dice_liver").heading, find_metric(MASK_METRICS, "weight").direction
    ('surface Dice, liver', '')
    """
    if name in table:
        return table[name]
    for stem in sorted(table, key=len, reverse=True):
        if name.startswith(f"{stem}_"):
            return table[stem].of_part(name[len(stem) + 1 :])
    return Metric(name, name.replace("_", " "), "No description of this column is known.", 0, overview=False)


def case_number(value: Any) -> float:
    """A cell as a number; an empty cell is NaN.

    Args:
        value: of a CSV file's cell, or a number.

    >>> case_number("0.75"), case_number("")
    (0.75, nan)
    """
    return math.nan if value is None or value == "" else float(value)


def table_of(metrics: Iterable[Metric]) -> dict[str, Metric]:
    """Metrics by name.

    Args:
        metrics: each with a name of its own.

    >>> table = table_of([Metric("hd95", "surface distance", "How far apart the surfaces are.", -1, unit="mm")])
    >>> table["hd95"].unit
    'mm'
    """
    return {metric.name: metric for metric in metrics}
