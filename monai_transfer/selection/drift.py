"""Drift: do the images of one site change over time (``acquired``), and since when?

For every measurement (``CaseDescription.features``) the largest CUSUM of its ranks over the patients in their order;
the largest of them all is compared with what random orders give, so there is one p value, however many measurements.

Paper: Page, Continuous Inspection Schemes, Biometrika 1954 (CUSUM); Pettitt, A Non-Parametric Approach to the
Change-Point Problem, Applied Statistics 1979
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from monai_transfer.selection.describe import FEATURE_NAMES, CaseDescription

__all__ = ["Drift", "drift"]

ALARM_LEVEL = 0.01
MIN_PATIENTS = 8


@dataclass(frozen=True)
class Drift:
    """Result of ``drift``.

    Attributes:
        site: whose images.
        alarm: ``p_value`` is below 0.01.
        p_value: of no change at all, over all measurements together.
        measurement: what changed most.
        since: ``acquired`` of the first patient after the most likely change.
        times: ``acquired`` of each patient, in order.
        values: each patient's value of ``measurement``, in the same order.
        sentence: the same in words.
    """

    site: str
    alarm: bool
    p_value: float
    measurement: str
    since: float
    times: tuple[float, ...]
    values: tuple[float, ...]
    sentence: str


def drift(cases: Sequence[CaseDescription], *, n: int = 999, seed: int = 0) -> list[Drift]:
    """Look for drift at each site that has at least eight patients acquired at two or more times.

    Patients are the units; one seen several times counts at its first time, with the mean of its measurements.
    """
    found = []
    for site in sorted({case.site for case in cases}):
        dated = [case for case in cases if case.site == site and case.acquired is not None]
        patients = sorted({case.patient for case in dated})
        groups = [[case for case in dated if case.patient == patient] for patient in patients]
        times = np.array([min(case.acquired for case in group if case.acquired is not None) for group in groups])
        if len(groups) < MIN_PATIENTS or len(np.unique(times)) < 2:
            continue
        features = np.stack([np.mean([case.features for case in group], axis=0) for group in groups])
        found.append(_one_site(site, times, features, n, seed))
    return found


def _one_site(site: str, times: np.ndarray, features: np.ndarray, n: int, seed: int) -> Drift:
    order = np.argsort(times, kind="stable")
    times, features = times[order], features[order]
    ranks = rankdata(features, axis=0)
    spread = ranks.std(0)
    ranks = np.where(spread > 0, (ranks - ranks.mean(0)) / np.maximum(spread, 1e-12), 0)
    # a change can only fall between two different times
    between = np.flatnonzero(np.diff(times) > 0)

    def cusum(rows: np.ndarray) -> np.ndarray:
        position = between + 1
        weight = np.sqrt(position * (len(rows) - position) / len(rows))  # so that early and late changes count alike
        return np.abs(np.cumsum(rows, 0)[between]) / np.maximum(weight, 1e-12)[:, None]

    observed = cusum(ranks)
    rng = np.random.default_rng(seed)
    null = np.array([cusum(ranks[rng.permutation(len(ranks))]).max() for _ in range(n)])
    p_value = (1 + int((null >= observed.max() - 1e-9).sum())) / (1 + n)
    where, which = np.unravel_index(int(observed.argmax()), observed.shape)
    since = float(times[between[where] + 1])
    alarm = p_value < ALARM_LEVEL
    name = FEATURE_NAMES[which]
    if alarm:
        text = f"ALARM: the images of {site} changed around acquired = {since:g}, most in {name} (p = {p_value:.3f})"
    else:
        text = f"no drift seen over time at {site} ({len(times)} patients, p = {p_value:.3f})"
    values = tuple(float(v) for v in features[:, which])
    return Drift(site, alarm, p_value, name, since, tuple(float(t) for t in times), values, text)
