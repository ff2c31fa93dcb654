"""What must be read before any difference: a sentence each, with what to try next. They stand under the headline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from monai_transfer.arm_names import arm_name
from monai_transfer.metrics.base import Metric, case_number
from monai_transfer.report.alignment import FIXED, ORACLE, Tables
from monai_transfer.report.run import Run
from monai_transfer.report.statistics import MIN_PATIENTS
from monai_transfer.report.wording import capitalised, listed, number

__all__ = ["alarms", "below_baselines", "chance_of", "guessed_blob"]

_MEMORISED = 0.3  # of a score that ends at 1
_ERROR_FACTOR = 3.0  # of an error, which has no upper end
_LOST_ON_GRID = 0.8
_CUT_ABOUT = (
    "Read nothing into the order of arms that an ellipsoid in the middle of the image beats: the images may be cut "
    "about the structure. Cut them elsewhere, train longer (--budget), or label more cases."
)


def alarms(arms: Mapping[str, Mapping[int, Run]], tables: Tables, metric: Metric, useless: int = 0) -> list[str]:
    """The sentences, the gravest first; an empty list where all is well.

    Args:
        arms: runs by arm and seed.
        tables: their values, patient by patient.
        metric: that they are compared by.
        useless: how many arms do not beat an ellipsoid in the middle of the image. The headline names them; of one
            alone there is no order to warn of.
    """
    found = [_few_patients(len(tables.patients)), _CUT_ABOUT if useless > 1 else "", _coarse_grid(arms)]
    found += [_memorised(arm, list(seeds.values())) for arm, seeds in arms.items() if arm not in (FIXED, ORACLE)]
    return [sentence for sentence in found if sentence]


def below_baselines(
    values: Mapping[str, np.ndarray], arm: str, baselines: Sequence[str], sign: float
) -> dict[str, float]:
    """Baselines that an arm's mean is below in every seed, and by how much on average.

    >>> below_baselines({"a": np.array([[0.5], [0.6]]), "source": np.array([[0.7], [0.7]])}, "a", ["source"], 1.0)
    {'source': 0.15}
    """
    found = {}
    for baseline in baselines:
        if baseline in values and values[arm].size:
            seeds = sign * (values[arm] - values[baseline]).mean(axis=1)
            if (seeds < 0).all():
                found[baseline] = round(float(-seeds.mean()), 12)
    return found


def chance_of(arms: Mapping[str, Mapping[int, Run]], metric: Metric) -> float | None:
    """The value of guessing: of a Dice, calling everything foreground; None where it is not known."""
    if metric.chance is not None or metric.name != "dice":
        return metric.chance
    return _guess(arms, "everything", metric)


def guessed_blob(arms: Mapping[str, Mapping[int, Run]], metric: Metric) -> float | None:
    """The Dice of an ellipsoid at its best size, as the runs themselves recorded it; None where they did not."""
    return _guess(arms, "blob", metric) if metric.name == "dice" else None


def _guess(arms: Mapping[str, Mapping[int, Run]], kind: str, metric: Metric) -> float | None:
    for seeds in arms.values():
        for run in seeds.values():
            values = run.guesses.get(kind) or {}
            part = [values[metric.part]] if metric.part in values else [] if metric.part else list(values.values())
            if part:
                return float(np.mean(part))
    return None


def _few_patients(count: int) -> str:
    if not 0 < count < MIN_PATIENTS:
        return ""
    who = "one test patient" if count == 1 else f"{count} test patients"
    return (
        f"There {'is' if count == 1 else 'are'} only {who}, so no interval can be had and nothing is told apart. Put "
        "more patients into the test split, or test each site in turn (study --leave-one-site-out)."
    )


def _coarse_grid(arms: Mapping[str, Mapping[int, Run]]) -> str:
    known: dict[str, float] = {}
    for seeds in arms.values():
        for run in seeds.values():
            for name, value in (run.guesses.get("working_grid") or {}).items():
                known[name] = max(value, known.get(name, 0.0))
    small = {name: value for name, value in known.items() if value < _LOST_ON_GRID}
    if not small:
        return ""
    told = listed([f"{name} {number(value)}" for name, value in small.items()])
    return (
        f"The working grid loses small structures: the true mask, brought to it and back, has a Dice with itself of "
        f"only {told}, and no training can do much better. Make the bundle with a finer --spacing."
    )


def _memorised(arm: str, runs: Sequence[Run]) -> str:
    """Training far better than the test: it knows its few cases by heart."""
    gaps = [gap for run in runs if (gap := _training_and_test(run)) is not None]
    if len(gaps) < len(runs) or not runs:
        return ""
    title, better = gaps[0][0], gaps[0][1]
    train, test = (float(np.mean([gap[n] for gap in gaps])) for n in (2, 3))
    far = train - test > _MEMORISED if better > 0 else test > _ERROR_FACTOR * train and train > 0
    if not far:
        return ""
    first = runs[0]
    own = "the cases it was trained on"
    if first.labelled and not first.record.get("joint"):
        own = f"its {first.labelled} labelled case{'s' if first.labelled != 1 else ''}"
    name = arm_name(arm)
    return (
        f"{capitalised(name)} memorised {own}: {title} {number(train)} in training, {number(test)} on the test "
        "cases. Try joint training or averaging with the source (--arms joint,joint_averaged,averaged), stronger "
        "augmentation (--augment standard), fewer steps, or more labelled cases."
    )


def _training_and_test(run: Run) -> tuple[str, int, float, float] | None:
    """Title and direction of a metric, its value in the last epochs of training, and on the test cases."""
    rows = [row for row in run.curves if row.get("split") == "training"]
    names = [name for row in rows[:1] for name in row if name.startswith("training_")]
    if not names or run.record.get("workflow") != "train":
        return None
    metric = run.metric(names[0].removeprefix("training_"))
    values = [case_number(row[names[0]]) for row in rows[-3:]]
    column = metric.case_column
    if not metric.better or column not in run.cases[0]:
        column = {"accuracy": "correct", "mae": "absolute_error"}.get(metric.name, "")
    if not column or column not in run.cases[0]:
        return None
    test = np.array([case_number(row[column]) for row in run.cases])
    if np.isnan(test).all() or any(math.isnan(v) for v in values):
        return None
    return metric.title, metric.better, float(np.mean(values)), float(np.nanmean(test))
