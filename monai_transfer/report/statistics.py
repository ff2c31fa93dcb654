"""The verdict's statistics: was a difference between two ways of training more than the luck of seeds and patients?

Each arm is trained with S seeds and tested on the same P patients. The seed x patient table of paired differences d has
two crossed sources of chance, the training run and the patient, and a residual: d_sp = mean + run_s + patient_p + e_sp.
Resampling patients alone treats a lucky run as a fact; averaging the runs alone treats a lucky choice of patients as
one. Here both count (Searle, Casella & McCulloch, *Variance Components*, 1992, ch. 4; degrees of freedom after
Satterthwaite, Biometrics Bulletin 2, 1946):

    v = v_run / S + v_patient / P - v_residual / (S P),     t = mean / sqrt(v)

with v_run and v_patient the variances of the run means and of the patient means. A variance component that would come
out negative is set to zero, as usual.

The rule of the verdict, for an arm against its baselines (training from scratch, and the untouched source model):

- **helped**: the 95 % interval lies above zero against *every* baseline. An intersection-union test: beating the better
  of the two has to be shown against both, and needs no correction (Berger, Technometrics 24, 1982).
- **hurt**: the arm is worse than *one* of the baselines, that is, worse than the better one: whoever had used that one
  would have been better off. Since there are two ways to be called so, the interval that must lie below zero is the
  98 % one (96 % with one baseline). That is Bonferroni, 1 - 0.05/k for k baselines, with a reserve of a fifth: from
  five seeds and many patients, Satterthwaite's t is a little too short.
- **no evidence**: neither.
- **no verdict**: fewer than 5 seeds or fewer than 3 patients.

Simulated (``tests/report/test_statistics.py``), a null effect is called helped, or hurt, in at most 3.5 % of studies
each, also with heavy-tailed or bounded values. Where few patients have strongly skewed differences, no t interval keeps
its promise; :func:`skewness` lets a report say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from monai_transfer.errors import InputError

__all__ = [
    "HELPED",
    "HURT",
    "MIN_PATIENTS",
    "MIN_SEEDS",
    "NO_EVIDENCE",
    "NO_VERDICT",
    "CrossedDifference",
    "Verdict",
    "crossed_difference",
    "decide",
    "detectable_difference",
    "gap_recovered",
    "skewness",
    "verdict",
]

HELPED, NO_EVIDENCE, HURT, NO_VERDICT = "helped", "no evidence", "hurt", "no verdict"
MIN_SEEDS, MIN_PATIENTS = 5, 3


@dataclass(frozen=True)
class CrossedDifference:
    """A mean over seeds and patients and what is known of it; numbers, or arrays for a stack of tables.

    >>> found = CrossedDifference(0.05, 0.01, 8.0, 0.027, 0.073, n_seeds=5, n_patients=20)
    >>> [round(float(end), 3) for end in found.interval(0.99)]
    [0.016, 0.084]
    """

    mean: Any
    standard_error: Any
    degrees_of_freedom: Any
    low: Any
    high: Any
    n_seeds: int
    n_patients: int

    def interval(self, level: float) -> tuple[Any, Any]:
        """The two-sided t interval at another level, such as 0.975."""
        reach = stats.t.ppf(0.5 + level / 2, self.degrees_of_freedom) * self.standard_error
        reach = np.where(np.asarray(self.standard_error) == 0, 0.0, reach)
        return self.mean - reach, self.mean + reach


def crossed_difference(table: Any, level: float = 0.95) -> CrossedDifference:
    """Mean of a seed x patient table, with seeds and patients both random.

    Args:
        table: (S, P) paired differences (or plain values, for the interval of one arm), or (..., S, P) for many tables
            at once. With one seed only the patients' chance is measured, with one patient only the seeds'.
        level: of the two-sided interval.

    Raises:
        InputError: not a table, or it holds NaN.

    Gains of two seeds on three patients:

    >>> from monai_transfer.report.statistics import crossed_difference
    >>> result = crossed_difference([[0.10, 0.20, 0.15], [0.12, 0.18, 0.16]])
    >>> round(float(result.mean), 4)
    0.1517
    """
    d = np.asarray(table, dtype=float)
    if d.ndim < 2 or min(d.shape[-2:]) < 1:
        raise InputError(
            f"a table of seeds x patients is needed, not an array of shape {d.shape}",
            hint="give one row for each seed, one column for each patient",
        )
    if not np.all(np.isfinite(d)):
        raise InputError(
            "the table of differences holds NaN or infinite values",
            hint="leave out patients without a value in every run",
        )
    s, p = d.shape[-2:]
    mean = d.mean(axis=(-2, -1))
    run = d.mean(axis=-1) - mean[..., None]
    patient = d.mean(axis=-2) - mean[..., None]
    rest = d - mean[..., None, None] - run[..., :, None] - patient[..., None, :]
    df_run, df_patient, df_rest = s - 1, p - 1, (s - 1) * (p - 1)
    tiny = (1e-12 * np.abs(d).max(axis=(-2, -1), initial=0.0)) ** 2  # rounding is no variance

    def square(total: np.ndarray, df: int) -> np.ndarray:
        mean_square = total / max(df, 1)
        return np.where(mean_square > tiny * s * p, mean_square, 0.0)

    ms_run = square(p * (run**2).sum(axis=-1), df_run)
    ms_patient = square(s * (patient**2).sum(axis=-1), df_patient)
    ms_rest = square((rest**2).sum(axis=(-2, -1)), df_rest)
    has_run, has_patient = ms_run > ms_rest, ms_patient > ms_rest  # else that component is estimated as zero
    weights = np.stack([has_run, has_patient, np.where(has_run & has_patient, -1.0, ~has_run & ~has_patient)])
    parts = weights * np.stack([ms_run, ms_patient, ms_rest])
    variance = parts.sum(axis=0)
    df_of = np.array([df_run, df_patient, df_rest], dtype=float).reshape(3, *[1] * mean.ndim)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.where(parts != 0, parts**2 / np.maximum(df_of, 1.0), 0.0).sum(axis=0)
        df = np.where(variance > 0, np.maximum(variance**2 / spread, 1.0), float(max(df_run, df_patient, 1)))
    error = np.sqrt(np.maximum(variance, 0.0) / (s * p))
    if s == 1 and p == 1:
        error = np.full_like(mean, np.nan)
    unpack = (lambda x: float(x)) if d.ndim == 2 else (lambda x: x)
    result = CrossedDifference(unpack(mean), unpack(error), unpack(df), np.nan, np.nan, s, p)
    low, high = result.interval(level)
    return CrossedDifference(
        result.mean, result.standard_error, result.degrees_of_freedom, unpack(low), unpack(high), s, p
    )


def detectable_difference(
    comparisons: Sequence[CrossedDifference], power: float = 0.8, margins: Sequence[Any] | None = None
) -> Any:
    """The smallest true improvement over the better baseline that a study like this one would call *helped*.

    With k baselines each comparison gets the power 1 - (1 - power)/k, so that all of them together have ``power``. The
    standard error, itself estimated from few seeds, is corrected for being too small on average (factor c4), and two
    fifths of the misses are kept in reserve for its uncertainty: the number is rather too large than too small.

    Args:
        comparisons: of the arm with each baseline.
        power: share of such studies that would say so.
        margins: by how much each baseline is known to be behind the better one; against it that much is gained already.
    """
    share = 1 - 0.6 * (1 - power) / len(comparisons)
    values = []
    for c, margin in zip(comparisons, margins or [0.0] * len(comparisons), strict=True):
        df = np.asarray(c.degrees_of_freedom, dtype=float)
        c4 = np.sqrt(2 / df) * np.exp(special.gammaln((df + 1) / 2) - special.gammaln(df / 2))
        values.append((stats.t.ppf(0.975, df) + stats.t.ppf(share, df)) * c.standard_error / c4 - margin)
    worst = np.max(values, axis=0)
    return float(worst) if np.ndim(worst) == 0 else worst


def decide(comparisons: Sequence[CrossedDifference]) -> tuple[Any, Any]:
    """The rule by itself: (helped, hurt) for an arm's comparisons with each of its baselines; positive is better."""
    helped = np.all([c.low > 0 for c in comparisons], axis=0)
    hurt_level = 1 - 0.04 / len(comparisons)
    hurt = np.any([c.interval(hurt_level)[1] < 0 for c in comparisons], axis=0)
    return helped, hurt


def gap_recovered(arm: Any, source: Any, oracle: Any, level: float = 0.95) -> tuple[float, float, float]:
    """(arm - source) / (oracle - source) with its interval, seeds and patients both random.

    The interval is Fieller's: all shares g of the gap that the table ``(arm - source) - g (oracle - source)`` does not
    contradict (Fieller, JRSS B 16, 1954). It is unbounded on a side where the gap itself is too uncertain.

    Args:
        arm, source, oracle: (S, P) tables of the same seeds and patients, larger (or all smaller) is better.
        level: of the interval.

    Returns:
        share, low, high; NaN where the oracle's mean is not away from the source's.

    >>> import numpy as np
    >>> from monai_transfer.report.statistics import gap_recovered
    >>> rng = np.random.default_rng(0)
    >>> noise = rng.normal(0, 0.01, (3, 5, 8))
    >>> share, low, high = gap_recovered(0.7 + noise[0], 0.6 + noise[1], 0.8 + noise[2])
    >>> round(float(share), 1)
    0.5
    """
    gain, gap = (np.asarray(t, dtype=float) - np.asarray(source, dtype=float) for t in (arm, oracle))
    whole = crossed_difference(gap, level)
    if abs(whole.mean) <= 1e-9:
        return float("nan"), float("nan"), float("nan")
    share = crossed_difference(gain).mean / whole.mean

    def contradicts(g: float) -> float:
        """Negative inside the interval."""
        d = crossed_difference(gain - g * gap)
        return abs(d.mean) - float(stats.t.ppf(0.5 + level / 2, d.degrees_of_freedom)) * d.standard_error

    def bound(direction: int) -> float:
        step = 1e-6
        if contradicts(share + direction * step) > 0:
            return float(share)
        while (step := 2 * step) < 1e3:
            if contradicts(share + direction * step) > 0:
                return float(optimize.brentq(contradicts, share + direction * step / 2, share + direction * step))
        return direction * float("inf")

    return float(share), bound(-1), bound(1)


@dataclass(frozen=True)
class Verdict:
    """What can be said of one arm.

    Args:
        word: ``helped``, ``no evidence``, ``hurt`` or ``no verdict``.
        reason: why, in one clause, for ``no verdict``; else empty.
        comparisons: per baseline; positive means that the arm is better.
        detectable: the smallest true improvement that would have been called helped in 80 % of such studies.
    """

    word: str
    reason: str
    comparisons: dict[str, CrossedDifference]
    detectable: float


def verdict(tables: Mapping[str, Any]) -> Verdict:
    """The verdict on an arm from its paired differences with each baseline (the module's text has the rule).

    Args:
        tables: baseline name -> (S, P) table of arm minus baseline, signed so that positive is better; same S and P.

    Raises:
        InputError: no baseline, or tables that differ in shape.
    """
    if not tables:
        raise InputError(
            "a verdict needs a baseline: scratch, source or both",
            hint="add a run of `scratch` or of the untouched source",
        )
    comparisons = {name: crossed_difference(table) for name, table in tables.items()}
    shapes = {(c.n_seeds, c.n_patients) for c in comparisons.values()}
    if len(shapes) > 1:
        raise InputError(
            f"the comparisons differ in seeds and patients: {sorted(shapes)}",
            hint="run every arm with the same seeds and test cases",
        )
    seeds, patients = shapes.pop()
    both = list(comparisons.values())
    best = min(comparisons, key=lambda name: comparisons[name].mean)
    behind = [crossed_difference(np.asarray(table) - np.asarray(tables[best])).low for table in tables.values()]
    detectable = detectable_difference(both, margins=np.nan_to_num(np.maximum(behind, 0.0)).tolist())
    if seeds < MIN_SEEDS:
        reason = f"fewer than {MIN_SEEDS} seeds ({seeds})"
        return Verdict(NO_VERDICT, reason, comparisons, detectable)
    if patients < MIN_PATIENTS:
        return Verdict(NO_VERDICT, f"fewer than {MIN_PATIENTS} test patients ({patients})", comparisons, detectable)
    helped, hurt = decide(both)
    return Verdict(HELPED if helped else HURT if hurt else NO_EVIDENCE, "", comparisons, detectable)


def skewness(table: Any) -> float:
    """Skewness of the patients' mean differences of an (S, P) table; 0 where they do not differ."""
    means = np.asarray(table, dtype=float).mean(axis=-2)
    return float(stats.skew(means, bias=False)) if len(means) > 2 and np.ptp(means) > 1e-12 else 0.0
