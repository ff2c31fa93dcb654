"""What a reader must know before believing a comparison: unequal budgets, other data, too little chance measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from monai_transfer.arm_names import arm_name
from monai_transfer.metrics.base import Metric
from monai_transfer.report.alignment import FIXED, ORACLE, SCRATCH, Tables
from monai_transfer.report.run import Run
from monai_transfer.report.statistics import MIN_SEEDS, CrossedDifference, crossed_difference, skewness
from monai_transfer.report.wording import CONTROLS, capitalised, span
from monai_transfer.runs.record import collapse_alarms

__all__ = ["cautions", "unbeaten_controls"]


def cautions(
    arms: dict[str, dict[int, Run]],
    tables: Tables,
    metric: Metric,
    judged: list[str],
    controls: dict[str, dict[str, CrossedDifference]],
) -> list[str]:
    """Sentences, the gravest first; an empty list where all is well. ``controls``: from ``unbeaten_controls``."""
    found = _collapsed(arms)
    runs = {arm: list(seeds.values()) for arm, seeds in arms.items()}
    every = [run for part in runs.values() for run in part]
    if len(_distinct(every, "manifest_sha256")) > 1:
        found.append("The runs used different manifests: they may have been trained or tested on different data.")
    trained = {arm: part for arm, part in runs.items() if arm not in (FIXED, ORACLE)}
    steps = {arm: {run.steps for run in part} for arm, part in trained.items()}
    found += _unequal(steps, "Unequal training budgets (optimizer steps)")
    labelled = {arm: {run.labelled for run in part} for arm, part in trained.items()}
    found += _unequal({a: n for a, n in labelled.items() if n != {0}}, "Unequal numbers of labelled target cases")
    if _starts_differ(arms):
        found.append("The arms start from different source weights, so the difference is not of the method alone.")
    if len({str(run.record.get("versions", {}).get("torch")) for run in every}) > 1:
        found.append("The runs were made with different versions of torch.")
    seeds = max(len(part) for arm, part in runs.items() if arm != ORACLE)
    if seeds < MIN_SEEDS:
        found.append(
            f"{seeds} seed(s): at least {MIN_SEEDS} are needed for a verdict, since training runs differ by luck."
        )
    for arm, table in tables.values.items():
        if arm not in (FIXED, ORACLE) and len(table) > 1 and table.size and np.ptp(table, axis=0).max() == 0:
            found.append(
                f"All seeds of {arm_name(arm)} gave identical results, so the luck of training was not measured."
            )
    n = len(tables.patients)
    if 0 < n < 10:
        found.append(f"Only {n} test patients: other patients may give another picture.")
    base = next((b for b in ("scratch", FIXED) if b in tables.values), None)
    if base and n < 30:
        skewed = [a for a in judged if abs(skewness(tables.values[a] - tables.values[base])) > 2]
        if skewed:
            names = ", ".join(arm_name(a) for a in skewed)
            found.append(f"A few patients make most of the difference ({names}): with {n} patients, take it with care.")
    unlabelled = [a for a in judged if labelled[a] == {0}]
    if unlabelled and any(run.labelled for run in runs.get("scratch", [])):
        names = ", ".join(arm_name(a) for a in unlabelled)
        found.append(
            f"Without target labels: {names}. Training from scratch had some, so being worse than it need not mean "
            "that adaptation failed; the comparison with the untouched source tells that."
        )
    found += [_beside_control(arm, name, d) for arm, unbeaten in controls.items() for name, d in unbeaten.items()]
    found += sorted(str(text) for text in _distinct(every, "source_says") if text)
    if tables.dropped:
        found.append(f"{len(tables.dropped)} patient(s) have no {metric.heading} in some run and were left out of all.")
    if tables.filled:
        found.append(
            f"In {tables.filled} case(s) some run predicted a structure that is not there; a run that rightly "
            "predicted nothing counts as perfect there."
        )
    if len(judged) > 3:
        found.append(f"{len(judged)} arms were judged, each with its own small chance of a false verdict.")
    return found


def unbeaten_controls(
    arms: dict[str, dict[int, Run]], tables: Tables, metric: Metric, judged: list[str]
) -> dict[str, dict[str, CrossedDifference]]:
    """Of each arm without target labels the controls that it is not shown to be better than, with the difference.

    A control has the arm's steps without its method: what it gains too is not the method's.
    """
    controls = [arm for arm in (*CONTROLS, "source_continued") if arm in tables.values]
    found: dict[str, dict[str, CrossedDifference]] = {}
    sign = -1.0 if metric.better < 0 else 1.0
    for arm in judged if metric.better else ():
        if arm in controls or any(run.labelled for run in arms[arm].values()):
            continue
        against = {c: crossed_difference(sign * (tables.values[arm] - tables.values[c])) for c in controls}
        found[arm] = {name: difference for name, difference in against.items() if difference.low <= 0}
    return {arm: unbeaten for arm, unbeaten in found.items() if unbeaten}


def _beside_control(arm: str, control: str, difference: CrossedDifference) -> str:
    return (
        f"{capitalised(arm_name(arm))} is not shown to be better than its control, {arm_name(control)} (difference "
        f"{span(difference.low, difference.high, sign=True)}): what it gained may not be the method's."
    )


def _starts_differ(arms: dict[str, dict[int, Run]]) -> bool:
    """Whether arms of one seed started from different weights; a source that was run once stands for every seed."""
    starts: dict[int, set[str | None]] = {}
    every = {seed for of_seed in arms.values() for seed in of_seed}
    for arm, of_seed in arms.items():
        if arm in (*SCRATCH, ORACLE):
            continue
        for seed, run in of_seed.items():
            for one in every if arm == FIXED and len(of_seed) == 1 else (seed,):
                starts.setdefault(one, set()).add(run.start)
    return any(len(found - {None}) > 1 for found in starts.values())


def _collapsed(arms: dict[str, dict[int, Run]]) -> list[str]:
    """A sentence for each arm of which a run's predictions on unlabelled target images raised an alarm."""
    sentences = []
    for arm, seeds in arms.items():
        alarms = [found for run in seeds.values() if (found := collapse_alarms(run.folder))]
        if alarms:
            told = "; ".join(dict.fromkeys(message for found in alarms for message in found))
            sentences.append(f"COLLAPSE in {len(alarms)} of {len(seeds)} runs of {arm_name(arm)}: {told}.")
    return sentences


def _distinct(runs: list[Run], key: str) -> set[Any]:
    return {run.record[key] for run in runs if run.record.get(key) is not None}


def _unequal(values: dict[str, set[int | None]], what: str) -> list[str]:
    known = {arm: sorted(v for v in found if v is not None) for arm, found in values.items()}
    known = {arm: found for arm, found in known.items() if found}
    if len({tuple(found) for found in known.values()}) < 2:
        return []
    listed = [f"{arm_name(arm)} {'/'.join(map(str, found))}" for arm, found in known.items()]
    return [f"{what}: {', '.join(listed)}."]
