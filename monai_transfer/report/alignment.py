"""Runs brought side by side: the same seeds, the same patients, one table of values per arm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from monai_transfer.arm_names import ARM_ORDER
from monai_transfer.errors import InputError
from monai_transfer.evaluation.patients import fill_right, patient_values
from monai_transfer.metrics.base import Metric, case_number
from monai_transfer.report.run import Run

__all__ = ["FIXED", "ORACLE", "SCRATCH", "Tables", "group_runs", "readable", "tabulate"]

FIXED, ORACLE = "source", "oracle"
SCRATCH = ("scratch", "scratch_same")


@dataclass
class Tables:
    """Values of one metric.

    Args:
        values: arm -> (S, P), all with the same seeds and patients; ``oracle`` may have seeds of its own.
        patients: the P patients, in order.
        dropped: patients left out because the metric is missing for them.
        filled: cases where some run predicted a structure that is not there, so that right runs count as right.
    """

    values: dict[str, np.ndarray]
    patients: list[str]
    dropped: list[str]
    filled: int


def group_runs(runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Arm -> seed -> run, in the order of a report; checks that they can be compared.

    Raises:
        InputError: an arm has a seed twice; arms differ in seeds (the untouched source may be run once, the oracle as
            often as one likes); runs differ in task, in test cases, in their patients or in their true labels.
    """
    if not runs:
        raise InputError("there are no runs to compare", hint="name run folders")
    first = runs[0]
    arms: dict[str, dict[int, Run]] = {}
    for run in runs:
        if run.task != first.task:
            raise InputError(
                f"is {run.task}, {first.name} is {first.task}", path=run.folder, hint="compare runs of one task"
            )
        seeds = arms.setdefault(run.arm, {})
        if run.seed in seeds:
            raise InputError(
                f"is a second run of arm {run.arm} with seed {run.seed}, beside {seeds[run.seed].name}",
                path=run.folder,
                hint="leave one out, or give one another arm name",
            )
        seeds[run.seed] = run
        _same_cases(first, run)
    trained = {a: sorted(s) for a, s in arms.items() if a != ORACLE and not (a == FIXED and len(s) == 1)}
    if len({tuple(seeds) for seeds in trained.values()}) > 1:
        listed = "; ".join(f"{arm}: {', '.join(map(str, seeds))}" for arm, seeds in trained.items())
        raise InputError(f"the arms were run with different seeds ({listed})", hint="compare runs with the same seeds")
    order = [a for a in ARM_ORDER if a in arms]
    order += [a for a in arms if a not in order and a != ORACLE] + [a for a in arms if a == ORACLE]
    return {arm: dict(sorted(arms[arm].items())) for arm in order}


def tabulate(
    arms: dict[str, dict[int, Run]],
    metric: Metric,
    task: str,
    keep: Callable[[dict[str, str]], bool] = lambda row: True,
) -> Tables:
    """The seed x patient tables of a metric; ``keep`` chooses the cases.

    An untouched source that was run once stands for every seed: nothing in it is drawn.
    """
    runs = [run for seeds in arms.values() for run in seeds.values()]
    rows = [sorted((row for row in run.cases if keep(row)), key=lambda row: row["case"]) for run in runs]
    per_case, filled = None, 0
    if metric.of_set is None:
        column = metric.case_column
        columns: list[list[float]] = []
        for run, part in zip(runs, rows, strict=True):
            with readable(run):
                columns.append([case_number(row[column]) for row in part])
        raw = np.array(columns)
        per_case = fill_right(raw, metric)
        filled = int((np.isnan(raw) & ~np.isnan(per_case)).any(axis=0).sum())
    found: list[dict[str, float]] = []
    for i, run in enumerate(runs):
        with readable(run):
            found.append(patient_values(rows[i], metric.full_name, task, None if per_case is None else per_case[i]))
    everyone = sorted(found[0])
    whole = [p for p in everyone if all(np.isfinite(values[p]) for values in found)]
    seeds = max((len(s) for arm, s in arms.items() if arm != ORACLE), default=1)
    tables, at = {}, 0
    for arm, of_seed in arms.items():
        own = found[at : at + len(of_seed)]
        at += len(of_seed)
        table = np.array([[values[p] for p in whole] for values in own]).reshape(len(own), len(whole))
        tables[arm] = np.repeat(table, seeds, axis=0) if arm == FIXED and len(own) == 1 else table
    return Tables(tables, whole, [p for p in everyone if p not in whole], filled)


@contextmanager
def readable(run: Run) -> Iterator[None]:
    """A cell or a column that cannot be read is the run's fault, not a bug.

    Raises:
        InputError: in place of what was raised within, naming the run's table.
    """
    try:
        yield
    except KeyError as error:
        raise InputError(
            f"lacks the column or class {error}",
            path=run.folder / "cases.csv",
            hint="test all runs with the same package version and manifest",
        ) from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise InputError(error.fault, path=run.folder / "cases.csv", hint=error.hint) from error
        raise InputError(
            f"holds a cell that is no number ({error})", path=run.folder / "cases.csv", hint="test the run again"
        ) from error


def _how_to_align(first: Run, run: Run) -> str:
    # a pretraining is tested at its own site: what the user wants beside the others is its weights at the target
    pretraining = next((r for r in (first, run) if r.record.get("workflow") == "pretrain"), None)
    if pretraining is None:
        return "evaluate all arms on the same test split of the same manifest"
    return (
        f"{pretraining.name} was tested at its own site; `monai-transfer run BUNDLE evaluate --run "
        f"{pretraining.folder}` tests its weights on the target's cases: compare that run instead"
    )


def _same_cases(first: Run, run: Run) -> None:
    reference = {row["case"]: row for row in first.cases}
    own = {row["case"]: row for row in run.cases}
    if reference.keys() != own.keys():
        other = sorted(reference.keys() ^ own.keys())[0]
        raise InputError(
            f"was tested on other cases than {first.name} ({other} is in only one of them)",
            path=run.folder,
            hint=_how_to_align(first, run),
        )
    for case, row in own.items():
        there = reference[case]
        if row["patient"] != there["patient"]:
            raise InputError(
                f"gives case {case} another patient than {first.name} does",
                path=run.folder,
                hint="test all runs with the same manifest",
            )
        if row.get("label", "") != there.get("label", ""):
            raise InputError(
                f"gives case {case} another true label than {first.name} does",
                path=run.folder,
                hint="test all runs with the same manifest",
            )
