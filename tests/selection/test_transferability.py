"""Scores against independent computations, golden values, and synthetic sources of known order."""

from __future__ import annotations

import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, minimize
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from sklearn.metrics import mutual_info_score

from monai_transfer.errors import InputError
from monai_transfer.selection.ccfv import wasserstein2
from monai_transfer.selection.permutation import permute
from monai_transfer.selection.transferability import (
    ccfv,
    gbc,
    h_score,
    leep,
    linear_probe,
    logme,
    nce,
    permutation_null,
    transrate,
)


def clusters(separation: float, n: int = 60, d: int = 8, k: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    means = rng.standard_normal((k, d))
    return rng.standard_normal((n, d)) + separation * means[labels], labels


def brute_force_evidence(features: np.ndarray, y: np.ndarray) -> float:
    """Largest log N(y; 0, F F^T/alpha + I/beta), by direct maximisation from several starts."""
    gram = features @ features.T

    def negative(logs: np.ndarray) -> float:
        covariance = np.exp(logs[0]) * gram + np.exp(logs[1]) * np.eye(len(y))
        return -multivariate_normal.logpdf(y, np.zeros(len(y)), covariance)

    starts = [(a, b) for a in (-8, -4, 0) for b in (-6, -2, 0)]
    fits = [minimize(negative, s, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9}) for s in starts]
    return -min(f.fun for f in fits) / len(y)


def test_logme_golden_value_with_fewer_cases_than_features():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((20, 256))
    assert logme(features, rng.integers(0, 2, 20)) == pytest.approx(-1.0594479, abs=1e-6)


@pytest.mark.parametrize(("n", "d"), [(30, 5), (12, 12), (15, 40)])
def test_logme_is_the_maximum_of_the_marginal_likelihood(n, d):
    rng = np.random.default_rng(n)
    features = rng.standard_normal((n, d))
    labels = (features[:, 0] + rng.standard_normal(n) > 0).astype(int)
    expected = np.mean([brute_force_evidence(features, (labels == c).astype(float)) for c in (0, 1)])
    assert logme(features, labels) == pytest.approx(expected, abs=1e-5)


def test_logme_of_quantities_and_of_several_targets():
    rng = np.random.default_rng(3)
    features = rng.standard_normal((25, 6))
    one = features @ rng.standard_normal(6) + 0.5 * rng.standard_normal(25)
    two = rng.standard_normal(25)
    assert logme(features, one) == pytest.approx(brute_force_evidence(features, one), abs=1e-5)
    assert logme(features, np.stack([one, two], 1)) == pytest.approx((logme(features, one) + logme(features, two)) / 2)
    # 0.0/1.0 floats are quantities unless said otherwise
    half = (one > 0).astype(float)
    assert logme(features, half, regression=False) == logme(features, half.astype(int))


def test_logme_does_not_see_scale_rotation_names_or_empty_columns():
    features, labels = clusters(0.5)
    value = logme(features, labels)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))[0]
    assert logme(1000 * features @ turn, labels) == pytest.approx(value)
    assert logme(np.hstack([features, np.zeros((60, 200))]), np.array(["a", "b", "c"])[labels]) == pytest.approx(value)


def test_logme_stays_finite_on_a_perfect_fit_and_on_no_signal():
    labels = np.arange(12) % 2
    assert np.isfinite(logme(np.eye(2)[labels], labels))
    assert np.isfinite(logme(np.zeros((12, 3)), labels))


@pytest.mark.parametrize(("n", "d"), [(60, 8), (20, 50)])
def test_h_score_is_the_formula(n, d):
    features, labels = clusters(0.7, n=n, d=d)
    fit = LedoitWolf().fit(features)
    centred = features - features.mean(0)
    means = np.stack([centred[labels == c].mean(0) for c in labels])
    between = means.T @ means / n
    expected = np.trace(np.linalg.pinv(fit.covariance_) @ ((1 - fit.shrinkage_) * between))
    with pytest.warns(UserWarning, match="random labels") if n < d else nullcontext():
        assert h_score(features, labels) == pytest.approx(expected)


def test_plain_h_score_is_at_its_maximum_on_random_labels_and_the_null_says_so():
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((20, 60)), rng.permutation(np.arange(20) % 2)
    with pytest.warns(UserWarning):
        null = permutation_null(h_score, features, labels, shrinkage=0.0, n=50)
    assert null.score == pytest.approx(1)
    assert null.p_value == 1


def test_leep_and_nce_are_their_definitions():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    logits = rng.standard_normal((40, 4)) + 2 * np.eye(4)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    logs = []
    for i in range(40):
        total = 0.0
        for z in range(4):
            share = sum(probabilities[j, z] for j in range(40) if labels[j] == labels[i])
            total += share / probabilities[:, z].sum() * probabilities[i, z]
        logs.append(np.log(total))
    assert leep(probabilities, labels) == pytest.approx(np.mean(logs))
    hard = probabilities.argmax(1)
    shares = np.bincount(labels) / 40
    entropy = -(shares * np.log(shares)).sum()
    assert nce(hard, labels) == pytest.approx(mutual_info_score(hard, labels) - entropy)
    assert nce(probabilities, labels) == nce(hard, labels)
    assert nce(labels, labels) == 0
    with pytest.raises(InputError, match="softmax"):
        leep(logits, labels)


@pytest.mark.parametrize("covariance", ["diagonal", "spherical"])
def test_gbc_is_the_bhattacharyya_coefficient(covariance):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 2000)
    features = rng.standard_normal((4000, 2)) * np.where(labels[:, None] == 0, 1.0, 2.0) + 1.5 * labels[:, None]
    # 1/8 * 2 * 1.5^2 / 2.5 + 1/2 * 2 * log(2.5 / 2), both ordered pairs
    expected = -2 * np.exp(-(2 * 1.5**2 / 2.5 / 8 + np.log(2.5 / 2)))
    assert gbc(features, labels, covariance=covariance) == pytest.approx(expected, rel=0.03)
    same = np.vstack([features[:50], features[:50]])
    assert gbc(same, np.repeat([0, 1], 50)) == pytest.approx(-2)
    assert -1e-6 < gbc(features + 100 * labels[:, None], labels) <= 0


def test_transrate_is_the_coding_rate():
    features, labels = clusters(1.0, n=30, d=4)
    centred = features - features.mean(0)

    def rate(rows):
        return 0.5 * np.log(np.linalg.det(np.eye(4) + rows.T @ rows / (len(rows) * 0.01)))

    expected = rate(centred) - sum(np.mean(labels == c) * rate(centred[labels == c]) for c in range(3))
    assert transrate(features, labels, eps=0.01) == pytest.approx(expected)
    wide = np.hstack([features, np.zeros((30, 70))])
    assert transrate(wide, labels, eps=0.01) == pytest.approx(expected)
    assert transrate(5 * features, labels, unit_variance=True) == pytest.approx(
        transrate(features, labels, unit_variance=True)
    )


def test_transrate_sees_two_balanced_classes_only_when_they_are_centred():
    near, far = (clusters(s, n=80, k=2, d=1) for s in (0.5, 50.0))
    assert transrate(*far, unit_variance=True) < transrate(*near, unit_variance=True) + 1e-3
    centred = {"unit_variance": True, "centre_classes": True}
    assert transrate(*far, **centred) > transrate(*near, **centred) + 1


def test_wasserstein_in_one_dimension_is_that_of_the_sorted_samples():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((20, 1)), rng.standard_normal((20, 1)) + 1
    assert wasserstein2(a, b) == pytest.approx(np.sqrt(np.mean((np.sort(a[:, 0]) - np.sort(b[:, 0])) ** 2)))
    assert wasserstein2(a, a[::-1]) == 0


def voxels(between: float, spread: float = 1.0, cases: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two classes in ``cases`` cases; ``between``: how much a class differs from case to case."""
    rng = np.random.default_rng(0)
    names, labels, rows = [], [], []
    for case in range(cases):
        for c in (0, 1):
            shift = between * rng.standard_normal(5)
            rows.append(spread * rng.standard_normal((30, 5)) + 3 * c + shift)
            labels += [c] * 30
            names += [f"case{case}"] * 30
    return np.vstack(rows), np.array(labels), np.array(names)


def test_ccfv_is_its_formula_and_prefers_what_is_consistent():
    features, labels, cases = voxels(0.0)
    centred = features - features.mean(0)
    scaled = centred / np.sqrt((centred**2).sum(1).mean())
    distances, energies = [], []
    for i in range(6):
        rows = features[cases == f"case{i}"]
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        gaps = [1 / np.linalg.norm(unit[a] - unit[b]) for a in range(60) for b in range(a)]
        energies.append(1 / np.mean(gaps))
        for j in range(i):
            for c in (0, 1):
                a = scaled[(cases == f"case{i}") & (labels == c)]
                b = scaled[(cases == f"case{j}") & (labels == c)]
                cost = cdist(a, b) ** 2
                distances.append(np.sqrt(cost[linear_sum_assignment(cost)].mean()))
    expected = np.log(np.mean(energies)) - np.mean(distances)
    assert ccfv(features, labels, cases, voxels=30) == pytest.approx(expected)
    worse, *_ = voxels(2.0)
    assert ccfv(features, labels, cases) > ccfv(worse, labels, cases)
    # collapsed directions: same classes, but every vector points the same way
    collapsed = features * 0.01 + 10
    assert ccfv(features, labels, cases) > ccfv(collapsed, labels, cases)
    assert permutation_null(ccfv, features, labels, groups=cases, within=True, n=20, voxels=8).p_value < 0.06


@pytest.mark.parametrize("score", [logme, h_score, gbc, transrate])
def test_scores_rank_sources_of_known_order(score):
    values = [score(*clusters(s)) for s in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert values == sorted(values)
    assert values[0] < values[-1]


@pytest.mark.parametrize("score", [logme, h_score, gbc, transrate])
@pytest.mark.parametrize(("n", "d"), [(60, 8), (24, 100)])
@pytest.mark.filterwarnings("ignore:H-score")
def test_null_tells_signal_from_random_labels(score, n, d):
    features, labels = clusters(1.5, n=n, d=d)
    assert permutation_null(score, features, labels, n=99).p_value == pytest.approx(0.01)
    rng = np.random.default_rng(5)
    noise = [permutation_null(score, rng.standard_normal((n, d)), rng.permutation(labels), n=39) for _ in range(8)]
    assert 0.2 < np.mean([null.p_value for null in noise]) < 0.8


def test_null_p_values_are_valid():
    rng = np.random.default_rng(0)
    p = [
        permutation_null(logme, rng.standard_normal((16, 20)), np.arange(16) % 2, n=19, seed=i).p_value
        for i in range(100)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.11  # nominal 0.05; the binomial 99 % bound at 100 is 0.11
    assert 0.4 < np.mean(p) < 0.65


def test_null_is_repeatable_and_the_generic_path_agrees():
    features, labels = clusters(0.3)
    one = permutation_null(logme, features, labels, n=30, seed=4)
    assert one == permutation_null(logme, features, labels, n=30, seed=4)
    other = permutation_null(lambda f, y: logme(f, y), features, labels, n=30, seed=4)
    assert other.p_value == one.p_value
    assert other.quantiles == pytest.approx(one.quantiles)
    assert one.z == pytest.approx(
        (one.score - one.quantiles[0.5]) / ((one.quantiles[0.95] - one.quantiles[0.05]) / 3.29)
    )


def test_permutation_keeps_groups_together():
    rng = np.random.default_rng(0)
    groups = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    pure = np.array([5, 5, 5, 6, 6, 7, 7, 7])
    for _ in range(10):
        out = permute(pure, rng, groups=groups)
        assert all(len(set(out[groups == g])) == 1 for g in range(3))
    mixed = np.array([0, 1, 1, 0, 1, 2, 2, 0])
    seen = set()
    for _ in range(20):
        out = permute(mixed, rng, groups=groups)
        assert sorted(out[3:5]) == [0, 1]  # no partner of its size
        seen.add((tuple(sorted(out[:3])), tuple(sorted(out[5:]))))
    assert seen == {((0, 1, 1), (0, 2, 2)), ((0, 2, 2), (0, 1, 1))}
    inside = permute(np.arange(8), rng, groups=groups, within=True)
    assert all(set(inside[groups == g]) == set(np.flatnonzero(groups == g)) for g in range(3))


def test_patients_seen_twice_do_not_make_noise_significant():
    """Near-copies of a patient are not evidence: the grouped null knows, the plain one is fooled."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(10), 20)
    features = rng.standard_normal((10, 6))[patients] + 0.05 * rng.standard_normal((200, 6))
    labels = (np.arange(10) % 2)[patients]
    assert permutation_null(logme, features, labels, n=60).p_value < 0.05
    assert permutation_null(logme, features, labels, n=60, groups=patients).p_value > 0.05


def test_linear_probe_finds_signal_and_no_signal_and_never_shares_patients():
    features, labels = clusters(2.0, n=60, d=100)
    probe = linear_probe(features, labels)
    assert probe.value > 0.9
    assert probe.interval[0] <= probe.value <= probe.interval[1]
    assert probe.metric == "balanced accuracy"
    # copies of a patient would give away the label if a patient stood on both sides
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(40), 4)
    noise = rng.standard_normal((40, 30))[patients]
    random = rng.permutation(np.arange(40) % 2)[patients]
    assert linear_probe(noise, random).value > 0.95
    assert linear_probe(noise, random, patients).value < 0.75


def test_linear_probe_of_quantities():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((50, 10))
    quantity = features @ rng.standard_normal(10) + 100
    probe = linear_probe(features, quantity)
    assert probe.metric == "R2"
    assert probe.value > 0.95
    assert np.abs(probe.predictions - quantity).max() < 3
    assert linear_probe(features, rng.standard_normal(50)).value < 0.3


def test_bad_input_is_one_clear_line():
    features, labels = clusters(1.0)
    broken = features.copy()
    broken[3, 2] = np.nan
    for score in (logme, h_score, gbc, transrate, linear_probe):
        with pytest.raises(InputError, match="row 3"):
            score(broken, labels)
        with pytest.raises(InputError, match="do not go with"):
            score(features, labels[:-1])
        with pytest.raises(InputError, match="two classes"):
            score(features, np.zeros(60, int))
    for score in (h_score, gbc, transrate):
        with pytest.raises(InputError, match="regression"):
            score(features, labels + 0.5)
    with pytest.raises(InputError, match="single patient"):
        linear_probe(features, labels, labels)
    with pytest.raises(InputError, match="two cases"):
        ccfv(features, labels, np.where(labels == 0, "a", np.where(labels == 1, "b", "c")))
    with pytest.raises(InputError, match="needs groups"):
        permutation_null(logme, features, labels, within=True)


@pytest.mark.parametrize("score", [logme, h_score, gbc, transrate, nce])
def test_tensors_are_as_good_as_arrays(score):
    features, labels = torch.randn(30, 2, requires_grad=True), torch.arange(30) % 2
    if score is nce:
        features = features.softmax(1)
    half = features.to(torch.bfloat16) if score is not nce else features
    assert score(half, labels) == score(half.detach().float().numpy(), labels.numpy())
    assert permutation_null(score, half, labels, n=3).score == score(half, labels)


def test_null_is_affordable_at_real_sizes():
    features, labels = clusters(0.2, n=300, d=2048)
    start = time.perf_counter()
    permutation_null(logme, features, labels, n=50)
    assert time.perf_counter() - start < 20
