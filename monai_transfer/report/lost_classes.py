"""Classes that the untouched source knew and an arm has lost: a mean over the other classes would not show it.

A class is known from a fifth of the way from guessing to perfect on (Dice or recall .2, AUC .6), and lost where an arm
keeps less than a fifth of what the source had. Where no test case can tell, since nobody looked for the class there,
the predictions themselves do: the source predicts the class in at least half of the cases, and the arm in less than a
tenth of those, or, where that was recorded, its Dice with the source's own predictions is below a fifth. What is
smaller than a tenth of the source's mean size is a speck and no prediction.

Where every test case says that a class is not there, the same fall may be a class that is lost, since nobody looked for
it and the manifest does not say so, or false findings that are gone. Both are said, and no gate decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from monai_transfer.metrics.base import Metric, case_number
from monai_transfer.report.wording import number, share
from monai_transfer.tasks import get_task

if TYPE_CHECKING:
    from monai_transfer.report.run import Run

__all__ = ["LostClass", "lost_classes", "lost_sentence"]

_KNOWN, _KEPT = 0.2, 0.2
_OFTEN, _RARELY = 0.5, 0.1


@dataclass(frozen=True)
class LostClass:
    """One class that an arm has lost.

    Args:
        name: of the class.
        source, arm: the metric's values; or, without ``metric``, the shares of cases in which it is predicted.
        metric: for people; empty where only predictions can tell.
        agreement: Dice of the predictions with the source's; NaN where it was not recorded.
        unmarked: no test case is marked with it, though none says that nobody looked for it.

    >>> LostClass("kidney", source=0.82, arm=0.0, metric="Dice").words
    'kidney (Dice 0.820 untouched, 0.000 here)'
    """

    name: str
    source: float
    arm: float
    metric: str = ""
    agreement: float = math.nan
    unmarked: bool = False

    @property
    def words(self) -> str:
        """What was seen, in a clause."""
        if self.metric:
            return f"{self.name} ({self.metric} {number(self.source)} untouched, {number(self.arm)} here)"
        same = "" if math.isnan(self.agreement) else f", with a Dice of {number(self.agreement)} between the two"
        return (
            f"{self.name} (predicted in {share(self.source)} of the cases by the untouched source, in "
            f"{share(self.arm)} here{same}; "
            + ("no test case is marked with it)" if self.unmarked else "no test case can tell whether it is there)")
        )


def lost_classes(
    task: str,
    source: Mapping[int, Run],
    arm: Mapping[int, Run],
    source_means: Mapping[str, float],
    means: Mapping[str, float],
) -> list[LostClass]:
    """The classes that an arm has lost.

    Args:
        task: of the runs.
        source, arm: their runs, by seed.
        source_means, means: every metric's mean over the seeds, by column.
    """
    kind = get_task(task)
    if kind.class_metric is None:
        return []
    metric = kind.metrics[kind.class_metric]
    rows = next(iter(source.values())).cases
    found = []
    for part in _parts(metric, source_means, rows[0]):
        own = metric.of_part(part)
        before, after = (_above_chance(metric, m.get(own.full_name, math.nan)) for m in (source_means, means))
        if not math.isnan(before):
            if before >= _KNOWN and after < _KEPT * before:
                name = own.full_name
                found.append(LostClass(part, source_means[name], means[name], metric.title))
            if not _nowhere(kind.metrics, source, part):
                continue
        unmarked = not math.isnan(before)
        theirs, ours = (_predicted_sizes(kind.metrics, runs, part) for runs in (source, arm))
        before, after = _share(theirs > 0), _share(ours > _RARELY * (theirs.mean() if len(theirs) else 0.0))
        if unmarked:
            if before >= _OFTEN and after < _RARELY * before:
                found.append(LostClass(part, before, after, unmarked=True))
            continue
        agreement = means.get(f"source_{metric.name}_{part}", math.nan)
        if before >= _OFTEN and (after < _RARELY * before or agreement < _KEPT):
            found.append(LostClass(part, before, after, agreement=agreement))
    return found


def lost_sentence(arm_name: str, lost: list[LostClass]) -> str:
    """What stands first in a verdict; empty where nothing was lost."""
    sure = ", ".join(one.words for one in lost if not one.unmarked)
    open_ = ", ".join(one.words for one in lost if one.unmarked)
    parts = [f"{arm_name} has lost what the source knew: {sure}. "] if sure else []
    if open_:
        parts.append(
            f"{arm_name} no longer predicts {open_}: lost, if nobody looked for it at this site (declare in the "
            "manifest what was, `annotated`), else false findings that are gone. "
        )
    return "".join(parts)


def _parts(metric: Metric, means: Mapping[str, float], row: Mapping[str, str]) -> list[str]:
    start = f"{metric.name}_"
    return list(dict.fromkeys(name.removeprefix(start) for name in (*means, *row) if name.startswith(start)))


def _above_chance(metric: Metric, value: float) -> float:
    """0 for guessing, 1 for perfect."""
    chance = metric.chance or 0.0
    return (value - chance) / (metric.high - chance)


def _nowhere(metrics: Mapping[str, Metric], runs: Mapping[int, Run], part: str) -> bool:
    """Whether every case says that the class is not there; False where the true size is not recorded."""
    rows = [row for run in runs.values() for row in run.cases]
    columns = [metric.of_part(part).case_column for metric in metrics.values() if metric.of_truth]
    return any(all(column in row and case_number(row[column]) == 0 for row in rows) for column in columns)


def _predicted_sizes(metrics: Mapping[str, Metric], runs: Mapping[int, Run], part: str) -> np.ndarray:
    """How large a class is predicted in each case, 0 for not at all; empty where that is not recorded."""
    rows = [row for run in runs.values() for row in run.cases]
    for metric in metrics.values():
        column = metric.of_part(part).case_column
        if metric.of_prediction and all(column in row for row in rows):
            return np.nan_to_num(np.array([case_number(row[column]) for row in rows]))
    return np.zeros(0)


def _share(cases: np.ndarray) -> float:
    return float(cases.mean()) if len(cases) else math.nan
