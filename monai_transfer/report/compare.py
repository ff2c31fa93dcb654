"""``compare_runs``: what transfer brought, arms side by side, with intervals and a verdict for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_transfer.arm_names import arm_name
from monai_transfer.errors import InputError
from monai_transfer.evaluation.patients import available_metrics
from monai_transfer.evaluation.summary import summarise
from monai_transfer.metrics.base import Metric
from monai_transfer.report.alarms import alarms, below_baselines, chance_of, guessed_blob
from monai_transfer.report.alignment import FIXED, ORACLE, Tables, group_runs, readable, tabulate
from monai_transfer.report.auto_decision import find_decision
from monai_transfer.report.cautions import cautions, unbeaten_controls
from monai_transfer.report.centred_blob import blob_of, useless_sentence
from monai_transfer.report.lost_classes import lost_classes, lost_sentence
from monai_transfer.report.run import Run
from monai_transfer.report.sentences import conclusion, verdict_sentence
from monai_transfer.report.statistics import (
    HURT,
    MIN_PATIENTS,
    NO_VERDICT,
    Verdict,
    crossed_difference,
    gap_recovered,
    verdict,
)
from monai_transfer.report.transfer_report import (
    BASELINES,
    ArmResult,
    Difference,
    Judgement,
    SiteResult,
    TransferReport,
    better_scratch,
)

__all__ = ["TransferReport", "compare_runs"]


def compare_runs(
    runs: Sequence[Run | str | Path], output: str | Path | None = None, *, metric: str | None = None
) -> TransferReport:
    """Compare the arms of a study.

    Arms are told apart by the name in each run.json: ``scratch``, ``scratch_same`` (the source's network from random
    weights) and ``source`` (untouched) are the baselines, ``oracle`` is an upper mark, all others are judged. Every arm
    needs the same seeds and the same test cases; only the untouched source may be run once.

    Args:
        runs: run folders, or ``Run`` objects.
        output: where to write the HTML report; None writes none.
        metric: the metric to judge by; None: the task's primary one (Dice, AUC, mean absolute error, FROC score). One
            of which neither more nor less is better, such as a predicted volume, is compared without a verdict.

    Raises:
        InputError: a run is unfinished or malformed, or the runs cannot be compared.

    Fine-tuning against both baselines, with five seeds and six patients each:

    >>> def run(arm, seed, dice):
    ...     record = {"task": "segmentation", "arm": arm, "seed": seed, "labels": {"0": "background", "1": "liver"}}
    ...     values = [dice + 0.01 * n + 0.002 * seed * (n % 2) for n in range(6)]
    ...     cases = [{"case": f"c{n}", "patient": f"p{n}", "site": "north", "dice": v} for n, v in enumerate(values)]
    ...     return Run(Path(f"{arm}-{seed}"), record, cases)
    >>> means = {"scratch": 0.6, "source": 0.5, "fine_tuned": 0.8}
    >>> report = compare_runs([run(arm, seed, mean) for arm, mean in means.items() for seed in range(5)])
    >>> report.judgements["fine_tuned"].word, report.warnings
    ('helped', ['Only 6 test patients: other patients may give another picture.'])
    >>> print(report.conclusion)
    Transfer helped: fine-tuned reached Dice 0.827, against training from scratch 0.627 and the untouched source 0.527.
    """
    loaded = [run if isinstance(run, Run) else Run.load(run) for run in runs]
    arms = group_runs(loaded)
    task = loaded[0].task
    with readable(loaded[0]):
        known = available_metrics(loaded[0].cases, task)
    metric = metric or loaded[0].kind.primary_metric
    if metric not in known:
        raise InputError(f"there is no metric {metric!r} to compare {task} by", hint=f"one of {', '.join(known)}")
    measure = loaded[0].metric(metric)
    sign = -1.0 if measure.better < 0 else 1.0
    tables = tabulate(arms, measure, task)
    results = {arm: _arm_result(arm, seeds, tables, task, measure) for arm, seeds in arms.items()}
    means = {arm: result.mean for arm, result in results.items()}
    judgements = {}
    blob = blob_of(loaded, metric)
    if blob is None:
        blob = guessed_blob(arms, measure)
    useless = sum(mean <= blob for mean in means.values()) if blob is not None else 0
    for arm in arms:
        if arm not in (*BASELINES, ORACLE):
            found = _judge(arm, tables, measure, sign)
            gap = _gap(results, arm, sign) if measure.better else None
            reach = _gap_interval(tables, arm) if gap is not None else None
            lost = []
            if FIXED in arms:
                lost = lost_classes(task, arms[FIXED], arms[arm], results[FIXED].metrics, results[arm].metrics)
            below = {}
            if found.word != HURT and measure.better:
                without_labels = FIXED in arms and all(run.labelled == 0 for run in arms[arm].values())
                fair = (FIXED,) if without_labels else BASELINES  # from scratch there are labels to learn from
                below = below_baselines(tables.values, arm, fair, sign)
            sentence = useless_sentence(arm_name(arm), results[arm].mean, blob)
            sentence += lost_sentence(arm_name(arm), lost)
            sentence += verdict_sentence(arm, measure, results[arm], found, gap, tables, reach)
            differences = {b: _difference(c) for b, c in found.comparisons.items()}
            judgements[arm] = Judgement(
                arm, found.word, found.reason, sentence, differences, found.detectable, gap, reach, lost, below
            )
    controls = unbeaten_controls(arms, tables, measure, list(judgements))
    report = TransferReport(
        task=task,
        metric=metric,
        higher_is_better=measure.better > 0 if measure.better else None,
        n_patients=len(tables.patients),
        n_cases=len(loaded[0].cases),
        seeds=sorted({s for arm, seeds in arms.items() if arm != ORACLE and len(seeds) > 1 for s in seeds})
        or sorted({run.seed for run in loaded}),
        arms=results,
        judgements=judgements,
        baseline_difference=_between(tables, FIXED, better_scratch(means, measure.better), sign),
        sites=_sites(arms, measure, task, sign),
        warnings=cautions(arms, tables, measure, list(judgements), controls),
        conclusion="",
        runs=arms,
        unit_of_length=loaded[0].unit_of_length,
        centred_blob=blob,
        alarms=alarms(arms, tables, measure, useless),
        chance=chance_of(arms, measure),
        unbeaten={arm: list(found) for arm, found in controls.items()},
        decision=find_decision(arms, means, sign) if measure.better else None,
    )
    report.conclusion = conclusion(report)
    if output is not None:
        from monai_transfer.report.html import write_html  # draws: only where a page is wanted

        write_html(report, output)
    return report


def _judge(arm: str, tables: Tables, metric: Metric, sign: float) -> Verdict:
    baselines = [b for b in BASELINES if b in tables.values]
    if not baselines:
        return Verdict(NO_VERDICT, "neither a scratch nor a source arm to compare with", {}, math.nan)
    if not tables.patients:
        reason = "the metric cannot be had patient by patient (too few patients, or of too few of each class)"
        return Verdict(NO_VERDICT, reason, {}, math.nan)
    differences = {b: sign * (tables.values[arm] - tables.values[b]) for b in baselines}
    if not metric.better:
        reason = f"neither more nor less {metric.title} is better in itself"
        return Verdict(NO_VERDICT, reason, {b: crossed_difference(d) for b, d in differences.items()}, math.nan)
    return verdict(differences)


def _difference(c: Any) -> Difference:
    low, high = (c.low, c.high) if c.n_patients >= MIN_PATIENTS else (math.nan, math.nan)
    return Difference(c.mean, low, high, c.standard_error, c.degrees_of_freedom)


def _between(tables: Tables, arm: str, baseline: str, sign: float) -> Difference | None:
    if arm not in tables.values or baseline not in tables.values or not tables.patients:
        return None
    return _difference(crossed_difference(sign * (tables.values[arm] - tables.values[baseline])))


def _arm_result(arm: str, seeds: dict[int, Run], tables: Tables, task: str, metric: Metric) -> ArmResult:
    metrics = []
    for run in seeds.values():
        with readable(run):
            metrics.append({k: e.mean for k, e in summarise(run.cases, task, intervals=False).items()})
    common = [k for k in metrics[0] if all(k in m for m in metrics)]
    means = {k: float(np.mean([m[k] for m in metrics])) for k in common}
    values = tables.values[arm]
    first = next(iter(seeds.values()))
    mean, low, high = means.get(metric.full_name, math.nan), math.nan, math.nan
    if tables.patients:
        whole = crossed_difference(values)
        mean, low, high = whole.mean, whole.low, whole.high
        if len(tables.patients) < MIN_PATIENTS:  # two points make no interval that means anything
            low, high = math.nan, math.nan
    low, high = metric.clip(low, high)  # a t interval does not know that a share ends at 0 and 1
    distinct = values if len(seeds) == len(values) else values[: len(seeds)]
    return ArmResult(
        name=arm,
        seeds=list(seeds),
        mean=mean,
        low=low,
        high=high,
        per_seed=[float(v) for v in distinct.mean(axis=1)] if tables.patients else [],
        per_patient=dict(zip(tables.patients, values.mean(axis=0).tolist(), strict=True)),
        metrics=means,
        labelled=first.labelled,
        chosen_on=first.chosen_on,
        steps=first.steps,
    )


def _gap(results: dict[str, ArmResult], arm: str, sign: float) -> float | None:
    """(arm - source) / (oracle - source), where the oracle is better than the source at all."""
    if FIXED not in results or ORACLE not in results:
        return None
    whole = results[ORACLE].mean - results[FIXED].mean
    if not math.isfinite(whole) or sign * whole <= 1e-9:
        return None
    return (results[arm].mean - results[FIXED].mean) / whole


def _gap_interval(tables: Tables, arm: str) -> tuple[float, float] | None:
    """The 95 % interval of the gap recovered; None where the oracle has other seeds, or no patient has a value."""
    values = tables.values
    if not tables.patients or values[ORACLE].shape != values[arm].shape:
        return None
    _, low, high = gap_recovered(values[arm], values[FIXED], values[ORACLE])
    return low, high


def _sites(arms: dict[str, dict[int, Run]], metric: Metric, task: str, sign: float) -> list[SiteResult]:
    first = next(iter(next(iter(arms.values())).values()))
    names = sorted({row.get("site") or "" for row in first.cases})
    if len(names) < 2:
        return []
    found = []
    for name in names:
        tables = tabulate(arms, metric, task, lambda row, name=name: (row.get("site") or "") == name)  # type: ignore[misc]
        means = {arm: float(v.mean()) if v.size else math.nan for arm, v in tables.values.items()}
        differences: dict[str, dict[str, Difference]] = {}
        for arm in tables.values:
            own = {b: _between(tables, arm, b, sign) for b in BASELINES if arm not in (*BASELINES, ORACLE)}
            differences[arm] = {b: d for b, d in own.items() if d is not None}
        found.append(SiteResult(name, len(tables.patients), means, differences))
    return found
