"""Splits: never a patient on two sides, fair shares of labels and sites, the same for the same seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from monai_transfer.errors import InputError
from monai_transfer.manifest.splits import assign_folds, assign_splits


def random_set(seed: int) -> tuple[list[str], list[tuple]]:
    """Cases of 1 to 40 patients, with 1 to 5 images each, many of them holding both classes, from 1 to 3 sites."""
    generator = np.random.default_rng(seed)
    patients, strata = [], []
    for p in range(generator.integers(1, 41)):
        site = int(generator.integers(1 + seed % 3))
        for _ in range(generator.integers(1, 6)):
            patients.append(f"p{p}")
            strata.append((site, int(generator.integers(2))))
    return patients, strata


def assert_no_leak(seed: int) -> None:
    patients, strata = random_set(seed)
    splits = assign_splits(patients, strata, seed=seed)
    assert all(len({s for q, s in zip(patients, splits, strict=True) if q == p}) == 1 for p in set(patients))
    if len(set(patients)) >= 3:
        assert set(splits) == {"training", "validation", "test"}
    if len(set(patients)) >= 5:
        folds = assign_folds(patients, strata, folds=5, seed=seed)
        assert len(set(zip(patients, folds, strict=True))) == len(set(patients))
        assert set(folds) == set(range(5))


def test_no_patient_leaks_in_200_seeds():
    for seed in range(200):
        assert_no_leak(seed)


@pytest.mark.slow
def test_no_patient_leaks_in_1000_seeds():
    for seed in range(200, 1200):
        assert_no_leak(seed)


@pytest.mark.parametrize(
    "fractions", [(0.6, 0.15, 0.25), (0.7, 0.1, 0.2), (0.5, 0, 0.5), (0, 0, 1), (0.34, 0.33, 0.33)]
)
def test_fractions_hold_in_every_stratum(fractions):
    patients = [f"p{i}" for i in range(400)]
    strata = [("north" if i % 4 else "south", i % 3 == 0) for i in range(400)]
    splits = assign_splits(patients, strata, fractions=fractions, seed=1)
    for stratum in set(strata):
        inside = [split for split, s in zip(splits, strata, strict=True) if s == stratum]
        for name, fraction in zip(("training", "validation", "test"), fractions, strict=True):
            assert inside.count(name) / len(inside) == pytest.approx(fraction, abs=0.08)
    counts = Counter(splits)
    for name, fraction in zip(("training", "validation", "test"), fractions, strict=True):
        assert counts[name] / 400 == pytest.approx(fraction, abs=0.03)


def test_tiny_strata_are_dealt_out():
    patients = [f"p{i}" for i in range(12)]
    strata = [f"site{i}" for i in range(12)]  # every patient is a stratum of its own
    counts = Counter(assign_splits(patients, strata, seed=3))
    assert counts["training"] == 7 and counts["validation"] == 2 and counts["test"] == 3


def test_repeatable_by_seed_whatever_the_order():
    patients, strata = random_set(5)
    first = dict(zip(patients, assign_splits(patients, strata, seed=4), strict=True))
    order = np.random.default_rng(0).permutation(len(patients))
    again = assign_splits([patients[i] for i in order], [strata[i] for i in order], seed=4)
    assert first == {patients[i]: split for i, split in zip(order, again, strict=True)}
    seeds = {tuple(assign_splits(patients, strata, seed=seed)) for seed in range(10)}
    assert len(seeds) > 5


def test_given_splits_bind_the_whole_patient():
    patients = ["a", "a", "b", "c", "d"]
    given = ["test", None, "training", None, None]
    splits = assign_splits(patients, [0] * 5, given=given, seed=0)
    assert splits[:3] == ["test", "test", "training"]
    with pytest.raises(InputError, match="patient 'a' stands in two given splits"):
        assign_splits(patients, [0] * 5, given=["test", "training", None, None, None])


def test_large_sets_are_split_in_time():
    patients = [f"p{i}" for i in range(5000)]
    splits = assign_splits(patients, [i % 6 for i in range(5000)])
    assert abs(Counter(splits)["test"] - 1250) < 20


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.2, 0.2), (1.2, -0.2, 0)])
def test_bad_fractions(fractions):
    with pytest.raises(InputError, match="sum to 1"):
        assign_splits(["a"], [0], fractions=fractions)


def test_too_many_folds():
    with pytest.raises(InputError, match="ask for 2 to 3 folds"):
        assign_folds(["a", "b", "c"], [0, 0, 0], folds=4)
