"""Validators against their formulas, and on synthetic checkpoints of known order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score

from monai_transfer.errors import InputError
from monai_transfer.selection.validators import (
    PredictionSummary,
    bnm,
    class_clustering,
    dev,
    entropy,
    importance_weights,
    information_maximisation,
    ist,
    oracle_gap,
    snd,
)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def predictions(skill: float, n: int = 90, k: int = 3, seed: int = 0) -> np.ndarray:
    """A network whose logits follow the true class (balanced) with so much ``skill`` over unit noise."""
    rng = np.random.default_rng(seed)
    return softmax(skill * np.eye(k)[np.arange(n) % k] + rng.standard_normal((n, k)))


def volume(skill: float, side: int = 12, lesion: bool = True, seed: int = 0) -> np.ndarray:
    """2 x side^3 probabilities: a cube of 1/64 of the volume is class 1."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((side,) * 3, int)
    if lesion:
        truth[: side // 4, : side // 4, : side // 4] = 1
    logits = skill * np.eye(2)[truth.ravel()] + 0.3 * rng.standard_normal((truth.size, 2))
    return softmax(logits).T.reshape(2, *truth.shape)


@pytest.mark.parametrize("validator", [entropy, information_maximisation, bnm, class_clustering, snd])
def test_a_more_skilful_network_scores_higher(validator):
    # for SND pure noise (skill 0) is no checkpoint of its kind: undecided cases are near neighbours too
    values = [validator(predictions(s)) for s in ((2.0, 4.0, 8.0) if validator is snd else (0.0, 2.0, 4.0, 8.0))]
    assert values == sorted(values)
    assert values[-1] > values[0]


@pytest.mark.parametrize("validator", [entropy, information_maximisation, bnm])
def test_a_more_skilful_segmenter_scores_higher(validator):
    values = []
    for skill in (0.5, 2.0, 4.0, 8.0):
        summary = PredictionSummary()
        for seed in range(3):
            summary.update(volume(skill, seed=seed)[None])
        values.append(validator(summary))
    assert values == sorted(values)


def test_entropy_and_information_are_their_formulas():
    p = predictions(2.0)
    mean_entropy = -(p * np.log(p)).sum(1).mean()
    marginal = p.mean(0)
    assert entropy(p) == pytest.approx(-mean_entropy / np.log(3))
    assert information_maximisation(torch.tensor(p)) == pytest.approx(
        (-(marginal * np.log(marginal)).sum() - mean_entropy) / np.log(3)
    )
    sure = np.eye(3)[np.arange(9) % 3]
    assert (entropy(sure), information_maximisation(sure)) == (0, pytest.approx(1))
    assert entropy(np.full((4, 5), 0.2)) == pytest.approx(-1)


def test_information_sees_through_a_confident_constant_and_entropy_does_not():
    constant = np.tile([0.998, 0.001, 0.001], (50, 1))
    good = predictions(4.0)
    assert entropy(constant) > entropy(good)
    assert information_maximisation(constant) == pytest.approx(0, abs=1e-9)
    assert information_maximisation(good) > 0.3
    assert bnm(constant[:50]) < bnm(good[:50])


def test_snd_and_bnm_are_their_formulas():
    p = predictions(3.0, n=40)
    unit = p / np.linalg.norm(p, axis=1, keepdims=True)
    total = 0.0
    for i in range(40):
        weights = np.exp(np.array([unit[i] @ unit[j] for j in range(40) if j != i]) / 0.05)
        weights /= weights.sum()
        total -= (weights * np.log(np.maximum(weights, 1e-300))).sum()
    assert snd(p) == pytest.approx(total / 40)
    assert snd(p, features=p) == pytest.approx(snd(p))
    assert snd(np.full((40, 3), 1 / 3)) == pytest.approx(np.log(39))
    assert bnm(p) == pytest.approx(np.sqrt(np.linalg.eigvalsh(p.T @ p).clip(0)).sum() / 40)


def test_snd_prefers_dense_class_clusters_of_features():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((4, 16))

    def features(noise):
        return centres[np.arange(80) % 4] + noise * rng.standard_normal((80, 16))

    p = predictions(2.0, n=80)
    values = [snd(p, features(noise)) for noise in (2.0, 1.0, 0.2)]
    assert values == sorted(values)


def test_clustering_takes_features_and_judges_the_predicted_classes():
    rng = np.random.default_rng(0)
    classes = np.arange(60) % 3
    features = 3 * np.eye(3)[classes] + rng.standard_normal((60, 3))
    right, wrong = 0.9 * np.eye(3)[classes] + 0.1 / 3, 0.9 * np.eye(3)[rng.permutation(classes)] + 0.1 / 3
    for index in ("calinski_harabasz", "silhouette"):
        assert class_clustering(right, features, index=index) > class_clustering(wrong, features, index=index)
    assert class_clustering(right, features, index="silhouette") == pytest.approx(silhouette_score(features, classes))
    one = np.tile([0.8, 0.1, 0.1], (60, 1))
    assert class_clustering(one, features) == 0
    assert class_clustering(one, features, index="silhouette") == -1


def test_segmentation_is_weighted_by_class_not_by_voxel():
    """A lesion that becomes undecided among thousands of sure background voxels must show."""
    sharp = volume(8.0)
    undecided = sharp.copy()
    inside = sharp.argmax(0) == 1
    undecided[:, inside] = [[0.49], [0.51]]
    plain = [PredictionSummary(balanced=False) for _ in range(2)]
    for summary, v in zip(plain, (sharp, undecided), strict=True):
        summary.update(v[None])
    drop = entropy(sharp[None]) - entropy(undecided[None])
    assert drop > 5 * (entropy(plain[0]) - entropy(plain[1])) > 0


def test_class_balanced_means_are_their_formula():
    v = volume(2.0)
    flat = v.reshape(2, -1)
    voxel_entropy = -(flat * np.log(flat)).sum(0)
    expected = np.mean([(flat[c] * voxel_entropy).sum() / flat[c].sum() for c in (0, 1)])
    assert entropy(v[None]) == pytest.approx(-expected / np.log(2))


def test_volumes_weigh_the_same_whatever_their_size_and_however_they_arrive():
    small, large = volume(1.0, side=8), volume(6.0, side=24)
    summary = PredictionSummary()
    summary.update(small[None])
    summary.update(large[None])
    assert entropy(summary) == pytest.approx((entropy(small[None]) + entropy(large[None])) / 2)
    split, whole = PredictionSummary(), PredictionSummary()
    pair = np.stack([volume(2.0, seed=1), volume(2.0, seed=2)])
    whole.update(pair)
    split.update(pair[:1])
    split.update(torch.tensor(pair[1:]))
    assert information_maximisation(split) == information_maximisation(whole)
    assert snd(split) == snd(whole)


def test_memory_is_bounded_however_many_volumes_come(monkeypatch):
    monkeypatch.setattr("monai_transfer.selection.validators.summary._CHUNK", 1000)
    summary = PredictionSummary(rows=300)
    for seed in range(10):
        summary.update(volume(3.0, seed=seed)[None])
    assert summary.sample.shape == (300, 2)
    assert summary.cases == 10
    assert summary.sample.argmax(1).mean() > 0.2  # all 27 lesion voxels a volume beside 96 of 1701 background ones
    monkeypatch.undo()
    again = PredictionSummary(rows=300)
    for seed in range(10):
        again.update(volume(3.0, seed=seed)[None])
    assert entropy(again) == pytest.approx(entropy(summary), rel=1e-12)  # chunks change nothing


def test_merged_summaries_of_processes_equal_one():
    parts, whole = [PredictionSummary(rows=100) for _ in range(2)], PredictionSummary(rows=100)
    for rank, part in enumerate(parts):
        part.reset(stream=rank)
    for seed in range(6):
        parts[seed % 2].update(volume(2.0 + seed, seed=seed)[None])
        whole.update(volume(2.0 + seed, seed=seed)[None])
    merged = PredictionSummary(rows=100)
    merged.merge([PredictionSummary().state(), *(part.state() for part in parts)])
    assert merged.cases == 6
    for score in (entropy, information_maximisation):
        assert score(merged) == pytest.approx(score(whole), rel=1e-12)
    assert merged.sample.shape == (100, 2)
    assert merged.class_cases.tolist() == whole.class_cases.tolist()
    own = {tuple(row) for part in parts for row in part.sample}
    assert {tuple(row) for row in merged.sample} <= own
    taken = [sum(tuple(row) in {tuple(r) for r in part.sample} for row in merged.sample) for part in parts]
    assert min(taken) > 20  # rows of both processes


def test_importance_weights_are_the_density_ratio():
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((2000, 1)), rng.standard_normal((3000, 1)) + 1
    weights = importance_weights(source, target)
    truth = np.exp(source[:, 0] - 0.5)
    assert np.corrcoef(np.log(weights), np.log(truth))[0, 1] > 0.99
    assert np.median(weights / truth) == pytest.approx(1, abs=0.1)


def test_dev_finds_the_target_risk_and_the_better_of_two_models():
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((3000, 2)), rng.standard_normal((3000, 2)) + [1.0, 0]

    def good(x):
        return np.where(x[:, 0] > 0.5, 0.1, 1.0)  # fails where the source is, does well where the target is

    def bad(x):
        return np.where(x[:, 0] > 0.5, 1.0, 0.1)

    assert good(source).mean() > bad(source).mean()  # source validation would choose wrongly
    for control_variate in (True, False):
        risk = -dev(source, target, good(source), control_variate=control_variate)
        assert risk == pytest.approx(good(target).mean(), abs=0.05)
        assert dev(source, target, good(source), control_variate=control_variate) > dev(
            source, target, bad(source), control_variate=control_variate
        )


def test_dev_says_when_nothing_overlaps():
    rng = np.random.default_rng(0)
    with pytest.warns(UserWarning, match="do not rely"):
        dev(rng.standard_normal((200, 2)), rng.standard_normal((200, 2)) + 4, rng.random(200))


def test_ist_is_zero_when_mixed_and_log_two_when_apart():
    rng = np.random.default_rng(0)
    values = [ist(rng.standard_normal((60, 8)), rng.standard_normal((40, 8)) + shift) for shift in (0.0, 0.5, 1.0, 4.0)]
    assert values == sorted(values, reverse=True)
    far = np.hstack([np.full((20, 1), 1.0), np.zeros((20, 1))])
    assert ist(far, far[:, ::-1]) == pytest.approx(-np.log(2), abs=1e-6)
    assert ist(far, far[:7]) == pytest.approx(0, abs=1e-9)  # unequal sizes are no gap


def test_oracle_gap():
    gap = oracle_gap([0.1, 0.9, 0.5], [0.6, 0.7, 0.8])
    assert (gap.chosen, gap.best) == (1, 2)
    assert gap.gap == pytest.approx(0.1)
    assert gap.rank_correlation == pytest.approx(0.5)
    assert "0.100 below" in gap.sentence()
    assert oracle_gap([float("nan"), 1.0], [0.9, 0.5]).chosen == 1
    with pytest.raises(InputError):
        oracle_gap([1.0], [1.0, 2.0])


def test_bad_input_is_one_clear_line():
    with pytest.raises(InputError, match="softmax"):
        entropy(np.random.default_rng(0).standard_normal((5, 3)))
    with pytest.raises(InputError, match="NaN"):
        entropy(np.full((5, 3), np.nan))
    with pytest.raises(InputError, match="C >= 2"):
        entropy(np.ones((5, 1)))
    with pytest.raises(InputError, match="at least one case"):
        entropy(PredictionSummary())
    with pytest.raises(InputError, match="three cases"):
        snd(predictions(1.0)[:2])
    summary = PredictionSummary()
    summary.update(predictions(1.0))
    with pytest.raises(InputError, match="earlier"):
        summary.update(predictions(1.0, k=4))
