"""How many labelled scans a way of training needs: its curve over their number, beside that of training from scratch.

``study --fractions 1,2,4,8,16`` gives one report for each number of labels; this joins them. The number that an arm
needs to equal training from scratch with n is read off its curve, straight lines between the counts that were run on
a logarithmic axis, since scores rise with the logarithm of the number of cases (Hestness et al., Deep Learning Scaling
is Predictable, Empirically, arXiv:1712.00409). Nothing is extrapolated: what lies outside the counts is told as "at
most" the smallest, or "more than" the largest. An arm without target labels needs none, or does not get there.

Intervals: percentile bootstrap, training seeds and patients drawn anew together, the same in all arms and counts; none
with fewer seeds or patients than a verdict needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from monai_transfer.arm_names import arm_name
from monai_transfer.errors import InputError
from monai_transfer.metrics.base import Metric
from monai_transfer.report.alignment import ORACLE, SCRATCH, tabulate
from monai_transfer.report.statistics import MIN_PATIENTS, MIN_SEEDS
from monai_transfer.report.transfer_report import TransferReport
from monai_transfer.report.wording import capitalised, number

__all__ = ["Curve", "LabelEfficiency", "Needed", "label_efficiency", "labels_needed"]

DRAWS = 1000


@dataclass
class Curve:
    """An arm's mean with its 95 % interval at each count of the study, and the labelled cases that it learned from."""

    means: list[float]
    lows: list[float]
    highs: list[float]
    labelled: list[int | None]

    @property
    def without_labels(self) -> bool:
        """Whether it uses no labelled target case, and is the same at every count."""
        return not any(self.labelled)


@dataclass
class Needed:
    """Labelled cases that an arm needs to reach ``value``, what training from scratch reaches with ``scratch_with``.

    ``labels``: the smallest count of the study where it is there at once (then it may be fewer), 0 without a label,
    infinite where it is not reached with the largest count. ``low``, ``high``: 95 % interval, NaN where there is none.
    """

    scratch_with: int
    value: float
    labels: float
    low: float
    high: float


@dataclass
class LabelEfficiency:
    """The curves of a study over several numbers of labels.

    Args:
        metric: what was measured.
        counts: numbers of labelled target cases, rising.
        seeds, n_patients: what every point rests on.
        curves: by arm.
        scratch: the arm from scratch that the others are measured by; empty: none was run.
        needed: by arm, for each count of ``scratch``.
    """

    metric: Metric
    counts: list[int]
    seeds: int
    n_patients: int
    curves: dict[str, Curve]
    scratch: str
    needed: dict[str, list[Needed]]

    @property
    def sentences(self) -> list[str]:
        """One for each arm: what it needs to equal training from scratch with the largest count."""
        return [capitalised(f"{arm_name(arm)} {self._said(own[-1])}.") for arm, own in self.needed.items()]

    @property
    def conclusion(self) -> str:
        """The sentence about ``auto``, or about the arm with labels that needs fewest."""
        if not self.needed:
            return "No arm from scratch was run, so there is nothing that fewer labels could equal."
        largest = self.counts[-1]
        trained = [arm for arm in self.needed if not self.curves[arm].without_labels] or list(self.needed)
        best = min(trained, key=self._order)
        arm = "auto" if "auto" in self.needed else best
        value = self.needed[arm][-1].value
        start = f"Training from scratch reaches {self.metric.heading} {number(value)} with {largest} labelled cases"
        return f"{start}; {arm_name(arm)} {self._said(self.needed[arm][-1])}."

    def _order(self, arm: str) -> tuple[bool, float, float]:
        """Fewest labels first, of equal ones the higher curve; what is not known last."""
        labels = self.needed[arm][-1].labels
        return math.isnan(labels), labels, -self.metric.better * float(np.mean(self.curves[arm].means))

    def _said(self, needed: Needed) -> str:
        if math.isnan(needed.labels):
            return "cannot be compared: a score is missing"
        if needed.labels == 0:
            return "is as good without one"
        if math.isinf(needed.labels):
            return f"does not get there with {self.counts[-1]}"
        return f"needs {self.words(needed)} for the same"

    def words(self, needed: Needed) -> str:
        """The number in words: ``at most 1``, ``2.8 (1.9 to 4.0)``, ``more than 16``, ``none``; a dash: not known."""
        if math.isnan(needed.labels):
            return number(needed.labels)
        if needed.labels == 0:
            return "none"
        if math.isinf(needed.labels):
            return f"more than {self.counts[-1]}"
        told = self._count(needed.labels)
        if math.isnan(needed.low):
            return told
        low, high = self._count(needed.low), self._count(needed.high)
        return told if low == high else f"{told} ({low} to {high})"

    def _count(self, labels: float) -> str:
        if math.isinf(labels):
            return f"more than {self.counts[-1]}"
        if labels <= self.counts[0]:
            return f"at most {self.counts[0]}"
        return f"{labels:.1f}".removesuffix(".0")

    def rows(self) -> list[dict[str, object]]:
        """One row for each arm and count, for a table file."""
        found: list[dict[str, object]] = []
        for arm, curve in self.curves.items():
            for i, count in enumerate(self.counts):
                row: dict[str, object] = {"arm": arm, "labelled": curve.labelled[i]}
                row |= {"metric": self.metric.full_name, "mean": curve.means[i]}
                row |= {"low": curve.lows[i], "high": curve.highs[i]}
                own = self.needed[arm][i] if arm in self.needed else None
                row |= {"scratch_with": count, "labels_to_equal_scratch": own.labels if own else ""}
                row |= {"labels_low": own.low if own else "", "labels_high": own.high if own else ""}
                found.append(row)
        return found


def labels_needed(counts: Sequence[int], values: Sequence[float], goal: float) -> float:
    """The number of labels at which a curve first reaches a goal; larger values are better.

    Args:
        counts: numbers of labelled cases, rising.
        values: the score at each.
        goal: what has to be reached.

    Returns:
        ``counts[0]`` where it is reached at once, infinity where it never is.

    >>> round(labels_needed([1, 2, 4], [0.5, 0.6, 0.8], 0.7), 3)
    2.828
    >>> labels_needed([1, 2, 4], [0.5, 0.6, 0.8], 0.4), labels_needed([1, 2, 4], [0.5, 0.6, 0.8], 0.9)
    (1.0, inf)
    """
    if values[0] >= goal:
        return float(counts[0])
    for i in range(1, len(counts)):
        if values[i] >= goal:
            share = (goal - values[i - 1]) / (values[i] - values[i - 1])
            return float(counts[i - 1] * (counts[i] / counts[i - 1]) ** share)
    return math.inf


def label_efficiency(reports: Mapping[int, TransferReport]) -> LabelEfficiency:
    """Join the reports of one study, one for each number of labelled target cases.

    Args:
        reports: by number of labels; of the same task, metric and test cases.

    Raises:
        InputError: fewer than two counts, or reports of different metrics.

    Joint training with two labelled cases is as good as training from scratch with eight:

    >>> from pathlib import Path
    >>> from monai_transfer.report.compare import compare_runs
    >>> from monai_transfer.report.run import Run
    >>> def run(arm, seed, dice, labelled):
    ...     record = {"task": "segmentation", "arm": arm, "seed": seed, "labels": {"0": "background", "1": "liver"}}
    ...     record |= {"workflow": "train", "labelled_train": labelled}
    ...     cases = [{"case": f"c{n}", "patient": f"p{n}", "site": "x", "dice": dice + 0.01 * n} for n in range(6)]
    ...     return Run(Path(f"{arm}-{seed}"), record, cases)
    >>> of = {"scratch": {2: 0.5, 4: 0.6, 8: 0.7}, "joint": {2: 0.7, 4: 0.75, 8: 0.8}}
    >>> found = label_efficiency(
    ...     {k: compare_runs([run(arm, s, of[arm][k], k) for arm in of for s in (0, 1)]) for k in (2, 4, 8)}
    ... )
    >>> [one.labels for one in found.needed["joint"]], found.words(found.needed["joint"][-1])
    ([2.0, 2.0, 2.0], 'at most 2')
    """
    counts = sorted(reports)
    if len(counts) < 2:
        raise InputError("one number of labelled cases makes no curve", hint="such as --fractions 1,2,4,8,16")
    first = reports[counts[0]]
    if len({(report.task, report.metric) for report in reports.values()}) > 1:
        raise InputError("the reports are of different metrics", hint="join reports of one study")
    arms = [arm for arm in first.arms if arm != ORACLE and all(arm in reports[count].arms for count in counts)]
    curves = {}
    for arm in arms:
        own = [reports[count].arms[arm] for count in counts]
        curves[arm] = Curve(
            [a.mean for a in own], [a.low for a in own], [a.high for a in own], [a.labelled for a in own]
        )
    scratch = next((arm for arm in SCRATCH if arm in arms and not curves[arm].without_labels), "")
    needed: dict[str, list[Needed]] = {}
    if scratch and first.measure.better:
        # an arm whose own setting fixes the number of labels has no curve over it
        others = [a for a, c in curves.items() if a not in SCRATCH and (c.without_labels or len(set(c.labelled)) > 1)]
        drawn = _draws(reports, counts, [*others, scratch], first.measure)
        for arm in others:
            needed[arm] = _needed(counts, curves, arm, scratch, drawn, first.measure.better)
    return LabelEfficiency(first.measure, counts, len(first.seeds), first.n_patients, curves, scratch, needed)


def _needed(
    counts: list[int],
    curves: Mapping[str, Curve],
    arm: str,
    scratch: str,
    drawn: Mapping[str, np.ndarray] | None,
    better: int,
) -> list[Needed]:
    free = curves[arm].without_labels
    sign = -1.0 if better < 0 else 1.0

    def of(means: Sequence[float], goal: float) -> float:
        if free:
            return 0.0 if means[0] >= goal else math.inf
        return labels_needed(counts, means, goal)

    own = [sign * value for value in curves[arm].means]
    found = []
    for i, count in enumerate(counts):
        value = curves[scratch].means[i]
        if not all(map(math.isfinite, (*own, value))):
            found.append(Needed(count, value, math.nan, math.nan, math.nan))
            continue
        low = high = math.nan
        if drawn is not None:
            every = [of(list(sign * m), sign * goal) for m, goal in zip(drawn[arm], drawn[scratch][:, i], strict=True)]
            low, high = (float(v) for v in np.quantile(every, (0.025, 0.975), method="nearest"))
        found.append(Needed(count, value, of(own, sign * value), low, high))
    return found


def _draws(
    reports: Mapping[int, TransferReport], counts: Sequence[int], arms: Sequence[str], metric: Metric
) -> dict[str, np.ndarray] | None:
    """Arm -> draws x counts of means, seeds and patients drawn anew; None where they are too few."""
    tables = [tabulate(reports[count].runs, metric, reports[count].task) for count in counts]
    patients = [p for p in tables[0].patients if all(p in table.patients for table in tables)]
    seeds = {table.values[arm].shape[0] for table in tables for arm in arms}
    if len(seeds) != 1 or min(seeds) < MIN_SEEDS or len(patients) < MIN_PATIENTS:
        return None
    rng = np.random.default_rng(0)
    number_of_seeds = seeds.pop()
    of_seeds = rng.integers(number_of_seeds, size=(DRAWS, number_of_seeds))
    of_patients = rng.integers(len(patients), size=(DRAWS, len(patients)))
    found = {}
    for arm in arms:
        columns = []
        for table in tables:
            values = table.values[arm][:, [table.patients.index(p) for p in patients]]
            columns.append([values[np.ix_(s, p)].mean() for s, p in zip(of_seeds, of_patients, strict=True)])
        found[arm] = np.array(columns).T
    return found
