"""The learned distances of a domain gap as rows: held-out proxy A-distance and unbiased MMD, patients as units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_transfer.selection.distances import domain_classifier, mmd
from monai_transfer.selection.two_samples import TwoSamples

__all__ = ["GapRow", "learned_rows"]

_SPLITS = 20  # of a set against itself


@dataclass(frozen=True)
class GapRow:
    """One measure of a gap: its value (0 is none), 95 % interval, unit, whether the interval excludes 0, and words.

    ``value``, ``low`` and ``high`` are ``None`` where the measure is not known in both samples.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    differs: bool
    sentence: str
    p_value: float | None = None


def learned_rows(of_what: str, a: np.ndarray, b: np.ndarray, samples: TwoSamples, seed: int) -> list[GapRow]:
    """Two rows for N x F features of the cases of A and M x F of those of B."""
    return [_a_distance(of_what, a, b, samples, seed), _mmd(of_what, a, b, samples, seed)]


def _a_distance(of_what: str, a: np.ndarray, b: np.ndarray, samples: TwoSamples, seed: int) -> GapRow:
    rng = np.random.default_rng(seed)
    n_splits = _SPLITS if samples.shared else 1
    values, replicates = [], []
    for in_a, in_b in samples.splits(n_splits):
        rows_a, rows_b = samples.rows_a(in_a), samples.rows_b(in_b)
        of_a, of_b = samples.patient_of_a(rows_a), samples.patient_of_b(rows_b)
        names_a, names_b = [f"a{i}" for i in of_a], [f"b{i}" for i in of_b]
        right = domain_classifier(a[rows_a], b[rows_b], names_a, names_b, seed=seed).astype(float)
        by_a = np.array([right[: len(rows_a)][of_a == p].mean() for p in np.unique(of_a)])
        by_b = np.array([right[len(rows_a) :][of_b == p].mean() for p in np.unique(of_b)])
        values.append(_from_accuracy(by_a.mean(), by_b.mean()))
        for _ in range(400 // n_splits):
            drawn = [x[rng.integers(0, len(x), len(x))].mean() for x in (by_a, by_b)]
            replicates.append(_from_accuracy(*drawn))
    # below 0 means worse than guessing, which is chance: no domains are closer than equal ones
    value, low, high = (
        min(max(round(float(v), 6), 0.0), 2.0) for v in (np.mean(values), *np.quantile(replicates, (0.025, 0.975)))
    )
    low, high = min(low, value), max(high, value)
    accuracy = 50 + 25 * value
    differs = low > 0
    verdict = "can tell the domains apart" if differs else "cannot be shown to tell the domains apart"
    sentence = (
        f"a held-out classifier on {of_what} {verdict}: right in {accuracy:.0f} % of new patients "
        f"(proxy A-distance {value:.2f} [{low:.2f}, {high:.2f}], 0 same, 2 fully apart)"
    )
    return GapRow(f"proxy A-distance on {of_what}", value, low, high, "of 2", differs, sentence)


def _from_accuracy(right_a: float, right_b: float) -> float:
    return 2 * (1 - 2 * (1 - (right_a + right_b) / 2))


def _mmd(of_what: str, a: np.ndarray, b: np.ndarray, samples: TwoSamples, seed: int) -> GapRow:
    results = []
    for in_a, in_b in samples.splits(_SPLITS if samples.shared else 1):
        rows_a, rows_b = samples.rows_a(in_a), samples.rows_b(in_b)
        names_a = [f"a{i}" for i in samples.patient_of_a(rows_a)]
        names_b = [f"b{i}" for i in samples.patient_of_b(rows_b)]
        results.append(mmd(a[rows_a], b[rows_b], names_a, names_b, seed=seed))
    value = float(np.mean([r.value for r in results]))
    error = float(np.sqrt(np.mean([r.error**2 for r in results])))
    p_value = float(np.median([r.p_value for r in results]))
    low, high = value - 1.96 * error, value + 1.96 * error
    value, low, high = (round(v, 6) + 0.0 for v in (value, low, high))
    differs = low > 0
    said = "differ" if differs else "cannot be shown to differ"
    sentence = (
        f"{of_what} {said} in distribution (MMD^2 {value:.3g} [{low:.3g}, {high:.3g}], permutation p = {p_value:.3f})"
    )
    return GapRow(f"MMD^2 on {of_what}", value, low, high, "", differs, sentence, p_value)
