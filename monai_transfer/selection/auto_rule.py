"""Which arm is taken, by what is known before a test case is seen: the rules of ``strategy=auto``, without training.

Fewer than eight labelled target patients do not tell arms apart: two-fold cross-validation on four was worse than
always training jointly (``docs/auto.md``). So below that a fixed rule decides, by how well the untouched source does on
the labelled cases, which it has never trained on. From eight on arms are cross-validated by patient, and of those that
are within one standard error of the best the one that departs least from the source is taken. Without a label the
untouched source stays, unless all default validators prefer another and none of its predictions has collapsed.

The one-standard-error rule: Breiman, Friedman, Olshen and Stone, Classification and Regression Trees, 1984; here on
paired differences, since patients differ more than arms do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from monai_transfer.arm_names import arm_name
from monai_transfer.metrics.base import Metric

__all__ = [
    "AT_CHANCE",
    "ENOUGH_PATIENTS",
    "ORDER",
    "Decision",
    "by_cross_validation",
    "by_fixed_rule",
    "by_validators",
    "telling_patients",
]

ORDER = (
    "source", "statistics", "head_only", "averaged", "joint_averaged", "joint", "fine_tuned", "self_trained", "scratch"
)  # fmt: skip
"""The arms, by how far they depart from the source: the first ones are the simpler."""

ENOUGH_PATIENTS = 8
"""From so many labelled patients on arms are cross-validated."""

_FIRST = ("joint_averaged", "joint", "averaged", "fine_tuned")
"""What is taken of too few cases to choose by: the first that can be trained."""

AT_CHANCE = 0.1
"""Below a tenth of that way the source knows nothing of what is asked."""


@dataclass(frozen=True)
class Decision:
    """What is taken, and why.

    Args:
        taken: the arm's name.
        rule: ``fixed rule``, ``cross-validation`` or ``validators``.
        reason: in a sentence.
        scores: what each candidate scored where it was looked at; larger is better.

    >>> Decision("joint", "fixed rule", "four labelled cases are too few to choose by").taken
    'joint'
    """

    taken: str
    rule: str
    reason: str
    scores: dict[str, float] = field(default_factory=dict)


def by_fixed_rule(
    level: float,
    candidates: Sequence[str],
    *,
    home: float = math.nan,
    patients: int | None = None,
    telling: float = math.inf,
) -> Decision:
    """Fewer labelled patients than can tell arms apart: joint training averaged with the source, with its images.

    Args:
        level: how well the untouched source does on the labelled target cases: 0 is guessing, 1 perfect; NaN where it
            cannot be told.
        candidates: arms that can be trained; joint training is among them where labelled source images are at hand.
        home: the same on the source's own cases, asked for where ``level`` is at chance or may be luck.
        patients: how many labelled ones.
        telling: from how many on ``level`` says for sure that a source knows nothing (``telling_patients``).

    >>> by_fixed_rule(0.8, ["source", "fine_tuned", "joint", "joint_averaged", "scratch"]).taken
    'joint_averaged'
    >>> by_fixed_rule(0.8, ["source", "fine_tuned", "averaged"]).taken, by_fixed_rule(0.2, ["fine_tuned"]).taken
    ('averaged', 'fine_tuned')
    >>> by_fixed_rule(0.0, ["fine_tuned", "joint", "scratch"], home=0.03).taken
    'scratch'
    """
    certain = (patients or 0) >= telling
    few = f"{patients} labelled patient{'s' if patients != 1 else ''}" if patients is not None else "few patients"
    start = f"{few} cannot tell arms apart, so a fixed rule decides: "
    if home < AT_CHANCE and "scratch" in candidates:
        where = "on the labelled target cases and on its own" if level < AT_CHANCE else "on its own cases"
        return Decision("scratch", "fixed rule", f"{start}the source is at chance {where}, so nothing of it is taken")
    if level < AT_CHANCE and certain and "scratch" in candidates:
        return Decision(
            "scratch",
            "fixed rule",
            f"{start}untouched the source is at chance on the labelled target cases, as one of another organ or of an "
            "inverted contrast is, so nothing is built upon it",
        )
    taken = next((arm for arm in _FIRST if arm in candidates), None) or _simplest(candidates)
    if "joint" in candidates or "joint_averaged" in candidates:
        why = "the source's labelled images are at hand, and they keep its knowledge"
    else:
        why = "no source image is at hand"
    if taken in ("joint_averaged", "averaged"):
        why += "; so does an average with its weights, which count the more the better it does on the labelled cases"
    if level < AT_CHANCE:
        why += "; untouched the source is at chance on the labelled target cases"
    return Decision(taken, "fixed rule", f"{start}{why}")


def telling_patients(metric: Metric) -> float:
    """From how many labelled patients on a metric tells what a source knows of them.

    Two where cases are scored by themselves (Dice, FROC); eight of a ranking (AUC), which of fewer is mostly chance; an
    error has no best value to be near to: infinite.

    >>> telling_patients(Metric("dice", "Dice", "", 1)), telling_patients(Metric("auc", "AUC", "", 1, chance=0.5))
    (2, 8)
    >>> telling_patients(Metric("mae", "MAE", "", -1))
    inf
    """
    if metric.better <= 0:
        return math.inf
    return ENOUGH_PATIENTS if metric.chance else 2


def by_cross_validation(scores: Mapping[str, Mapping[str, float]], guess: float = math.nan) -> Decision:
    """The simplest arm that is within one standard error of the best, and told apart from guessing.

    The error is that of the paired differences over patients. Where all arms do badly that error is large, and the
    simplest would be a source that knows nothing: an arm is not taken for its simplicity unless its own mean lies two
    standard errors above guessing.

    Args:
        scores: arm -> patient -> score on cases that the arm did not train on, larger is better; patients of which any
            arm has no value are left out.
        guess: what guessing scores; NaN where that is not known.

    Raises:
        ValueError: no arm, or no patient that all have.

    >>> better = {"a": 0.80, "b": 0.90, "c": 0.85}
    >>> by_cross_validation({"source": {"a": 0.79, "b": 0.91, "c": 0.84}, "joint": better}).taken
    'source'
    >>> by_cross_validation({"source": {"a": 0.5, "b": 0.6, "c": 0.5}, "joint": better}).taken
    'joint'
    >>> near = {"source": {"a": 0.3, "b": 0.8, "c": 0.5}, "scratch": {"a": 0.9, "b": 0.6, "c": 0.7}}
    >>> by_cross_validation(near).taken, by_cross_validation(near, guess=0.5).taken
    ('source', 'scratch')
    """
    patients = sorted(set.intersection(*[{p for p, v in own.items() if math.isfinite(v)} for own in scores.values()]))
    if not patients:
        raise ValueError("no patient has a score in every arm")
    values = {arm: np.array([scores[arm][p] for p in patients]) for arm in _ordered(scores)}
    means = {arm: float(own.mean()) for arm, own in values.items()}
    best = max(means, key=lambda arm: means[arm])
    near: list[str] = []
    guessing: list[str] = []
    for arm, own in values.items():
        loss = values[best] - own
        if arm == best:
            near.append(arm)
        elif float(loss.mean()) <= _standard_error(loss):
            (guessing if means[arm] - 2 * _standard_error(own) <= guess else near).append(arm)
    taken = near[0]
    reason = f"cross-validated on {len(patients)} labelled patients: {arm_name(taken)} had the best mean"
    if taken != best:
        reason = (
            f"cross-validated on {len(patients)} labelled patients: {arm_name(best)} had the best mean, and "
            f"{arm_name(taken)} was the simplest arm within one standard error of it"
        )
    if guessing:
        reason += f"; not told apart from guessing: {', '.join(map(arm_name, guessing))}"
    return Decision(taken, "cross-validation", reason, means)


def _standard_error(values: np.ndarray) -> float:
    """The standard error of a mean over patients."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def by_validators(
    scores: Mapping[str, Mapping[str, float]], collapsed: Mapping[str, Sequence[str]] | None = None
) -> Decision:
    """Without a target label: the untouched source, unless all validators prefer another arm.

    Args:
        scores: arm -> validator -> score on unlabelled target images, larger is better.
        collapsed: arm -> what the alarm said; such an arm is never taken over the source.

    >>> sure = {"entropy": -0.1, "bnm": 0.9}
    >>> by_validators({"source": {"entropy": -0.3, "bnm": 0.7}, "self_trained": sure}).taken
    'self_trained'
    >>> by_validators({"source": {"entropy": -0.3, "bnm": 0.7}, "self_trained": sure}, {"self_trained": ["gone"]}).taken
    'source'
    """
    alarms = {arm: list(said) for arm, said in (collapsed or {}).items() if said}
    source = scores.get("source", {})
    better = []
    for arm in _ordered(scores):
        own = scores[arm]
        shared = [name for name in source if math.isfinite(source[name]) and math.isfinite(own.get(name, math.nan))]
        if arm != "source" and arm not in alarms and shared and all(own[name] > source[name] for name in shared):
            better.append(arm)
    names = list(dict.fromkeys(name for own in scores.values() for name in own))
    rank = {arm: float(np.mean([_rank(scores, arm, name) for name in names])) if names else 0.0 for arm in scores}
    said = "".join(f"; {arm_name(arm)} has collapsed ({'; '.join(text)})" for arm, text in alarms.items())
    if not better:
        reason = f"without target labels the untouched source stays: no other arm is preferred by all validators{said}"
        return Decision("source", "validators", reason, rank)
    taken = max(better, key=lambda arm: rank[arm])
    reason = f"without target labels: all validators ({', '.join(names)}) prefer {arm_name(taken)} to the source{said}"
    return Decision(taken, "validators", reason, rank)


def _rank(scores: Mapping[str, Mapping[str, float]], arm: str, name: str) -> float:
    """Share of the other arms that this one is ahead of."""
    own = scores[arm].get(name, math.nan)
    others = [scores[other].get(name, math.nan) for other in scores if other != arm]
    return float(np.mean([own > other for other in others])) if others else 1.0


def _ordered(arms: Mapping[str, object]) -> list[str]:
    return [arm for arm in ORDER if arm in arms] + [arm for arm in arms if arm not in ORDER]


def _simplest(candidates: Sequence[str]) -> str:
    return _ordered(dict.fromkeys(candidates))[0]
