"""The verdict in words, for people who do not read tables."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from monai_transfer.arm_names import arm_name
from monai_transfer.metrics.base import Metric
from monai_transfer.report.alignment import SCRATCH, Tables
from monai_transfer.report.centred_blob import useless_summary
from monai_transfer.report.lost_classes import lost_sentence
from monai_transfer.report.statistics import (
    HELPED,
    HURT,
    MIN_PATIENTS,
    NO_EVIDENCE,
    NO_VERDICT,
    CrossedDifference,
    Verdict,
)
from monai_transfer.report.wording import capitalised, listed, number, share, shares, span

if TYPE_CHECKING:
    from monai_transfer.report.transfer_report import ArmResult, Difference, TransferReport

__all__ = ["conclusion", "verdict_sentence"]

_BASELINE = {
    "scratch": "training from scratch",
    "scratch_same": "training the source's network from scratch",
    "source": "the untouched source",
}
_EXPECTED = ("scratch", "source")
"""Whose absence is told."""


def verdict_sentence(
    arm: str,
    metric: Metric,
    result: ArmResult,
    found: Verdict,
    gap: float | None,
    tables: Tables,
    reach: tuple[float, float] | None = None,
) -> str:
    """The verdict on one arm: the word, both comparisons, and what the study could have seen."""
    name, measure = arm_name(arm), metric.heading
    head = f"{name}: {found.word}"
    head += f", {found.reason}" if found.reason else ""
    text = f"{head}. {measure} {number(result.mean)}"
    text += f" (95 % interval {span(result.low, result.high)})" if span(result.low, result.high) != "–" else ""
    few = len(tables.patients) < MIN_PATIENTS
    clauses = [_clause(b, _without_interval(c) if few else c, metric) for b, c in found.comparisons.items()]
    text += f"; {' and '.join(clauses)}." if clauses else "."
    if found.word == HURT:
        worst = min(found.comparisons, key=lambda b: found.comparisons[b].mean)
        if worst in SCRATCH:
            text += " This is negative transfer: training from scratch, without the source, gives the better result."
        else:
            text += " This training took away from the source model: using it untouched gives the better result."
    missing = [_BASELINE[b] for b in _EXPECTED if b not in tables.values]
    if missing and found.comparisons:
        text += f" This says nothing about {missing[0]}, which is not among the runs."
    if gap is not None:
        text += f" It recovered {share(gap)} of the gap between the untouched source and the oracle"
        text += f" (95 % interval {shares(*reach)})." if reach else "."
    if found.word == NO_EVIDENCE:
        text += f" A true improvement of {number(found.detectable)} would have been seen in 80 % of such studies."
    return text


def _without_interval(c: CrossedDifference) -> CrossedDifference:
    return replace(c, low=math.nan, high=math.nan)


def _clause(baseline: str, c: CrossedDifference | Difference, metric: Metric) -> str:
    gain = f"by {number(abs(c.mean))} (interval {span(c.low, c.high, sign=True)})"
    words = _BASELINE[baseline]
    if not metric.better and (c.low > 0 or c.high < 0):
        return f"{'above' if c.mean > 0 else 'below'} {words} {gain}"
    if c.low > 0:
        return f"better than {words} {gain}"
    if c.high < 0:
        return f"worse than {words} {gain}"
    if not (c.low == c.low and c.high == c.high):
        return f"{'above' if c.mean >= 0 else 'below'} {words} by {number(abs(c.mean))}"
    return f"not told apart from {words} (difference {span(c.low, c.high, sign=True)})"


def conclusion(report: TransferReport) -> str:
    """The report in one or two sentences."""
    measure = report.measure.heading
    judged = report.judgements
    sign = -1.0 if report.measure.better < 0 else 1.0
    order = sorted(judged, key=lambda a: -sign * report.arms[a].mean)
    helped = [a for a in order if judged[a].word == HELPED]
    hurt = [a for a in order if judged[a].word == HURT]
    unclear = [a for a in order if judged[a].word == NO_EVIDENCE and not judged[a].below]
    marks = [f"{_BASELINE[b]} {number(report.arms[b].mean)}" for b in _BASELINE if b in report.arms]
    against = f" ({measure}: {'; '.join(marks)})" if marks else ""
    parts = [lost_sentence(capitalised(arm_name(a)), judged[a].lost).strip() for a in order]
    parts = [part for part in parts if part]
    parts += [sentence] if (sentence := _at_chance(report)) else []
    useless = [name for name, arm in report.arms.items() if arm.mean <= (report.centred_blob or -1.0)]
    told = useless_summary([arm_name(name) for name in useless], len(report.arms), report.centred_blob)
    only_scratch = set(useless) <= set(SCRATCH)  # nobody would take it: no warning before the others' result
    parts += [told] if told and not only_scratch else []
    parts += _below(report, order)
    lost = len(parts)
    if helped:
        best = helped[0]
        parts.append(
            f"Transfer helped: {arm_name(best)} reached {measure} {number(report.arms[best].mean)}{_versus(marks)}."
        )
        if len(helped) > 1:
            more = [f"{arm_name(a)} ({number(report.arms[a].mean)})" for a in helped[1:]]
            parts.append(f"So did {listed(more)}.")
        for arm in filter(report.unbeaten.get, helped):
            controls = "; ".join(f"{arm_name(c)} {number(report.arms[c].mean)}" for c in report.unbeaten[arm])
            parts.append(f"{capitalised(arm_name(arm))} is not shown to be more than its control ({controls}).")
    if hurt:
        reasons = []
        for arm in hurt:
            worst = min(judged[arm].differences, key=lambda b: judged[arm].differences[b].mean)
            loss = number(abs(judged[arm].differences[worst].mean))
            own = number(report.arms[arm].mean)
            reasons.append(f"{arm_name(arm)} ({measure} {own}) is worse than {_BASELINE[worst]} by {loss}")
        parts.append(f"Transfer hurt: {listed(reasons)}{'' if helped else against}.")
    if unclear and not helped:
        names = listed([arm_name(a) for a in unclear])
        parts.append(f"There is no evidence that {names} helped{'' if hurt else against}.")
    if len(parts) == lost and judged and any(j.word == NO_VERDICT for j in judged.values()):
        parts.append(f"No verdict: {next(iter(judged.values())).reason}{against}.")
    base = report.baseline_difference
    if base is not None and not helped and len(report.seeds) >= 5 and base.low > 0 and report.measure.better:
        parts.append(
            f"The untouched source by itself beats {_BASELINE[report.best_scratch]} by {number(base.mean)} "
            f"({span(base.low, base.high, sign=True)})."
        )
    if not judged:
        parts.append(f"Only baselines were compared{against}.")
    parts += [told] if told and only_scratch else []
    return " ".join(parts)


def _below(report: TransferReport, order: list[str]) -> list[str]:
    """Arms below a baseline in every seed, the worst first: an interval that holds zero does not make that unclear."""
    found: list[tuple[float, str]] = []
    for arm in order:
        below = report.judgements[arm].below
        if not below:
            continue
        worst = max(below, key=lambda baseline: below[baseline])
        seeds = len(report.seeds)
        often = f"in all {seeds} seeds" if seeds > 1 else "in its only seed"
        name, own = arm_name(arm), report.arms[arm]
        patients = f"{report.n_patients} patient{'s' if report.n_patients != 1 else ''}"
        text = (
            f"{capitalised(name)} ({report.measure.heading} {number(own.mean)}) is below "
            f"{_BASELINE[worst]} ({number(report.arms[worst].mean)}) by {number(below[worst])} {often}; not proven at "
            f"this size ({patients})."
        )
        found.append((below[worst], text))
    texts = [text for _, text in sorted(found, reverse=True)]
    if texts:
        untried = [arm for arm in ("joint", "joint_averaged", "averaged", "auto") if arm not in report.arms]
        texts.append(
            f"To try next: --arms {','.join(untried)}." if untried else "More labelled cases are what is left to try."
        )
    return texts


def _at_chance(report: TransferReport) -> str:
    """Where no arm is told apart from guessing: then no difference between them says anything."""
    first = next(iter(next(iter(report.runs.values())).values()))
    chance = report.chance
    if chance is None:
        chance = report.measure.guessing([row for row in first.cases if first.kind.known(row)])
    lowest = 0.0 if report.measure.name == "dice" else -math.inf
    known = [arm for arm in report.arms.values() if arm.low == arm.low]
    if (
        chance is None
        or len(known) < len(report.arms)
        or any(not (arm.low <= chance and (arm.high >= chance or lowest == 0.0)) for arm in known)
    ):
        return ""
    if lowest == 0.0:
        return (
            f"All arms are at chance: none is told apart from calling everything foreground ({report.measure.heading} "
            f"{number(chance)}), so these cases show nothing that was learned."
        )
    held = f"every 95 % interval of {report.measure.heading} holds {number(chance)}"
    return f"All arms are at chance: {held}, so these cases show nothing that was learned."


def _versus(marks: list[str]) -> str:
    return f", against {listed(marks)}" if marks else ""
