"""Proxy A-distance and MMD: independent computation, no gap where there is none, patients kept together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from monai_transfer.errors import InputError
from monai_transfer.selection.distances import mmd, proxy_a_distance


def normal(n, shift=0.0, d=5, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)) + shift


def test_proxy_a_distance_goes_from_nothing_to_two():
    values = [proxy_a_distance(normal(80), normal(60, shift, seed=1)) for shift in (0.0, 0.5, 1.5, 8.0)]
    assert values == sorted(values)
    assert abs(values[0]) < 0.6
    assert values[-1] == 2


def test_copies_of_a_patient_do_not_give_the_domain_away():
    patients = np.repeat(np.arange(12), 10)
    a, b = normal(12, d=40)[patients], normal(12, d=40, seed=1)[patients]
    names = [f"{p}" for p in patients]
    assert proxy_a_distance(a, b) > 1.9
    assert proxy_a_distance(a, b, [f"a{n}" for n in names], [f"b{n}" for n in names]) < 1.0


def test_mmd_is_the_unbiased_estimate():
    a, b = normal(7), normal(9, 0.8, seed=1)
    both = np.vstack([a, b])
    both = (both - both.mean(0)) / both.std(0)
    width = np.median(pdist(both, "sqeuclidean"))

    def kernel(x, y):
        return np.exp(-((x - y) ** 2).sum() / width)

    s, t = both[:7], both[7:]
    expected = (
        sum(kernel(s[i], s[j]) for i in range(7) for j in range(7) if i != j) / 42
        + sum(kernel(t[i], t[j]) for i in range(9) for j in range(9) if i != j) / 72
        - 2 * sum(kernel(x, y) for x in s for y in t) / 63
    )
    assert mmd(a, b).value == pytest.approx(expected)


def test_mmd_is_unbiased_and_its_test_valid():
    found = [mmd(normal(15, seed=2 * i), normal(10, seed=2 * i + 1), n=40, seed=i) for i in range(60)]
    values = np.array([f.value for f in found])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(60)
    assert np.mean([f.p_value <= 0.05 for f in found]) < 0.15
    assert np.mean([abs(f.value) > 1.96 * f.error for f in found]) < 0.15
    far = mmd(normal(15), normal(10, 2.0, seed=1))
    assert far.p_value < 0.01
    assert far.value > 3 * far.error


def test_too_few_patients_are_refused():
    with pytest.raises(InputError, match="two patients"):
        proxy_a_distance(normal(10), normal(10), ["a"] * 10, list("0123456789"))
    with pytest.raises(InputError, match="two patients"):
        mmd(normal(10), normal(1))
    with pytest.raises(InputError, match="5 and 4 features"):
        mmd(normal(10), normal(10, d=4))
