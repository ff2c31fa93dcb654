"""The verdict: formulas by hand, special cases, and 1000 simulated null studies of each shape."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from monai_transfer.errors import InputError
from monai_transfer.report.statistics import (
    HELPED,
    HURT,
    NO_EVIDENCE,
    NO_VERDICT,
    crossed_difference,
    decide,
    detectable_difference,
    gap_recovered,
    skewness,
    verdict,
)

STUDIES = 1000


def test_the_formula_by_hand():
    rng = np.random.default_rng(0)
    s, p = 6, 9
    d = rng.normal(size=(s, 1)) + rng.normal(size=(1, p)) + 0.3 * rng.normal(size=(s, p))
    v_run, v_patient = d.mean(1).var(ddof=1), d.mean(0).var(ddof=1)
    rest = d - d.mean(1, keepdims=True) - d.mean(0, keepdims=True) + d.mean()
    v_residual = (rest**2).sum() / ((s - 1) * (p - 1))
    v = v_run / s + v_patient / p - v_residual / (s * p)
    df = v**2 / ((v_run / s) ** 2 / (s - 1) + (v_patient / p) ** 2 / (p - 1) + (v_residual / s / p) ** 2 / 40)
    got = crossed_difference(d)
    assert got.mean == pytest.approx(d.mean())
    assert got.standard_error == pytest.approx(np.sqrt(v))
    assert got.degrees_of_freedom == pytest.approx(df)
    assert got.high - got.mean == pytest.approx(stats.t.ppf(0.975, df) * np.sqrt(v))


def test_a_deterministic_pair_is_a_paired_t_test_over_patients():
    one = np.random.default_rng(1).normal(size=12)
    got = crossed_difference(np.tile(one, (5, 1)))
    interval = stats.ttest_1samp(one, 0).confidence_interval()
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high))
    assert got.degrees_of_freedom == pytest.approx(11)
    single = crossed_difference(one[None])
    assert (single.low, single.high) == pytest.approx((interval.low, interval.high))


def test_more_residual_than_effects_does_not_shrink_the_error():
    d = np.array([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]] * 3)  # all run and patient means are 0
    assert crossed_difference(d).standard_error == pytest.approx(np.sqrt((d**2).sum() / 15 / 24))


def test_constant_tables():
    flat = crossed_difference(np.full((5, 4), 0.1))
    assert (flat.low, flat.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert verdict({"scratch": np.zeros((5, 4))}).word == NO_EVIDENCE
    assert verdict({"scratch": np.full((5, 4), 0.1)}).word == HELPED
    assert np.isnan(crossed_difference([[0.3]]).low)


def test_stacks_agree_with_single_tables():
    tables = np.random.default_rng(0).normal(size=(7, 5, 6))
    stack = crossed_difference(tables)
    for i in range(7):
        assert crossed_difference(tables[i]).high == pytest.approx(stack.high[i])


def noisy(effect, seeds=5, patients=12, seed=0):
    rng = np.random.default_rng(seed)
    return effect + 0.01 * (rng.normal(size=(seeds, 1)) + rng.normal(size=(1, patients)))


@pytest.mark.parametrize(
    ("scratch", "source", "word"),
    [
        (0.1, 0.1, HELPED),
        (0.1, 0.0, NO_EVIDENCE),  # better than scratch alone is not enough
        (0.1, -0.1, HURT),  # the untouched source would have been better
        (-0.1, -0.1, HURT),
        (0.0, 0.0, NO_EVIDENCE),
    ],
)
def test_the_rule(scratch, source, word):
    result = verdict({"scratch": noisy(scratch), "source": noisy(source, seed=1)})
    assert result.word == word
    assert set(result.comparisons) == {"scratch", "source"}
    assert result.detectable > 0


def test_too_few_seeds_or_patients_give_no_verdict():
    few = verdict({"scratch": noisy(0.5, seeds=4)})
    assert (few.word, few.reason) == (NO_VERDICT, "fewer than 5 seeds (4)")
    assert few.comparisons["scratch"].mean == pytest.approx(0.5, abs=0.05), "numbers are shown all the same"
    assert verdict({"scratch": noisy(0.5, patients=2)}).word == NO_VERDICT


def test_bad_tables_are_refused():
    with pytest.raises(InputError, match="NaN"):
        crossed_difference([[0.1, np.nan], [0.1, 0.2]])
    with pytest.raises(InputError, match="seeds x patients"):
        crossed_difference([0.1, 0.2])
    with pytest.raises(InputError, match="differ"):
        verdict({"scratch": np.zeros((5, 4)), "source": np.zeros((5, 5))})
    with pytest.raises(InputError, match="baseline"):
        verdict({})


def test_skewness_is_of_the_patients():
    lone = np.zeros((5, 12))
    lone[:, 3] = 1.0
    assert skewness(lone) > 3
    assert skewness(np.zeros((5, 12))) == 0


def _draw(rng, kind, shape):
    if kind == "normal":
        return rng.standard_normal(shape)
    if kind == "heavy":
        return rng.standard_t(3, shape) / np.sqrt(3)
    return rng.uniform(-1, 1, shape) * np.sqrt(3)


def studies(kind, seeds, patients, run, patient, residual, seed=0, n=STUDIES):
    """Null studies: an adapted arm and scratch, trained anew per seed, and one source that is the same for all seeds.

    Every arm finds some patients easier than the others do (``patient``), each training run is better or worse for all
    patients (``run``). ``bounded`` scores are squashed into 0..1 like a Dice. The source is a given network, no draw:
    it has no luck of training of its own.
    """
    rng = np.random.default_rng([seed, seeds, patients, ord(kind[0])])
    easy = _draw(rng, kind, (n, 1, patients))

    def arm(s, luck):
        score = easy + luck * _draw(rng, kind, (n, s, 1)) + patient * _draw(rng, kind, (n, 1, patients))
        score = score + residual * _draw(rng, kind, (n, s, patients))
        return 1 / (1 + np.exp(-score)) if kind == "bounded" else score

    source = np.repeat(arm(1, 0.0), seeds, axis=1)
    return arm(seeds, run), arm(seeds, run), source


SHAPES = [(5, 3), (5, 12), (5, 60), (10, 6), (20, 12)]
COMPONENTS = [(0.5, 0.5, 0.5), (0.3, 0.1, 0.1), (0.05, 0.5, 0.2), (0.05, 0.05, 0.5)]


@pytest.mark.parametrize("kind", ["normal", "heavy", "bounded"])
@pytest.mark.parametrize(("seeds", "patients"), SHAPES)
def test_a_null_effect_is_seldom_called_helped_or_hurt(kind, seeds, patients):
    hardest = []
    for parts in COMPONENTS:
        adapted, scratch, source = studies(kind, seeds, patients, *parts)
        against = [crossed_difference(adapted - scratch), crossed_difference(adapted - source)]
        helped, hurt = decide(against)
        assert helped.mean() <= 0.035, parts
        assert hurt.mean() <= 0.035, parts
        # the hardest null: the arm equals the better baseline, and the other one is far behind or not there
        behind = crossed_difference(np.full((STUDIES, seeds, patients), 9.0))
        hardest += [decide([single, behind]) for single in against] + [decide([single]) for single in against]
    helped, hurt = np.mean(hardest, axis=(0, 2))
    assert helped <= 0.035
    assert hurt <= 0.035


@pytest.mark.parametrize("kind", ["normal", "heavy", "bounded"])
@pytest.mark.parametrize(("seeds", "patients"), SHAPES)
@pytest.mark.parametrize("baselines", [1, 2])
def test_the_printed_detectable_difference_is_detected(kind, seeds, patients, baselines):
    for parts in COMPONENTS:
        adapted, scratch, source = studies(kind, seeds, patients, *parts)
        against = [crossed_difference(adapted - b) for b in (scratch, source)[:baselines]]
        printed = detectable_difference(against)
        for effect in (printed, printed.mean()):  # the study's own number, and what studies of this shape print
            shift = np.broadcast_to(effect, (STUDIES,))[:, None, None]
            moved = [crossed_difference(adapted + shift - b) for b in (scratch, source)[:baselines]]
            assert decide(moved)[0].mean() >= 0.8, (parts, np.mean(effect))


def test_resampling_patients_alone_would_have_failed():
    """Why the runs count as well: a t test over patients calls a null effect helped far too often."""
    adapted, scratch, _ = studies("normal", 5, 12, 0.3, 0.1, 0.1)
    patients = (adapted - scratch).mean(axis=1)
    naive = stats.ttest_1samp(patients, 0, axis=1)
    assert ((naive.pvalue < 0.05) & (naive.statistic > 0)).mean() > 0.14


def test_gap_recovered_is_fiellers_interval():
    """Against Fieller's closed form, where patients alone vary (the runs are equal)."""
    rng = np.random.default_rng(3)
    p, t = 15, stats.t.ppf(0.975, 14)
    source = np.tile(rng.normal(0.4, 0.05, p), (5, 1))
    gain, gap = rng.normal(0.1, 0.06, p), rng.normal(0.3, 0.08, p)
    share, low, high = gap_recovered(source + gain, source, source + gap)
    a, b = gain.mean(), gap.mean()
    vaa, vab, vbb = np.cov(gain, gap).ravel()[[0, 1, 3]] / p
    roots = np.sort(np.roots([b**2 - t**2 * vbb, -2 * (a * b - t**2 * vab), a**2 - t**2 * vaa]))
    assert share == pytest.approx(a / b)
    assert (low, high) == pytest.approx(tuple(roots), rel=1e-6)


def test_gap_recovered_without_a_clear_gap_is_unbounded_and_of_equals_exact():
    rng = np.random.default_rng(4)
    source = rng.normal(0.4, 0.1, (5, 12))
    _, low, high = gap_recovered(source + 0.1, source, source + rng.normal(0.01, 0.2, (5, 12)))
    assert np.isinf(low) or np.isinf(high)
    assert gap_recovered(source + 0.1, source, source + 0.2) == pytest.approx((0.5, 0.5, 0.5), abs=1e-5)
    assert all(np.isnan(gap_recovered(source + 0.1, source, source)))


def test_gap_recovered_covers():
    """The true share lies inside in about 95 % of simulated studies, with seeds and patients both varying."""
    rng, inside = np.random.default_rng(5), 0
    for _ in range(200):
        d = rng.normal(0, 0.04, (3, 5, 1)) + rng.normal(0, 0.04, (3, 1, 12)) + rng.normal(0, 0.02, (3, 5, 12))
        _, low, high = gap_recovered(0.5 + 0.1 + d[0], 0.5 + d[1], 0.5 + 0.2 + d[2])
        inside += low <= 0.5 <= high
    assert 0.90 <= inside / 200 <= 0.995
