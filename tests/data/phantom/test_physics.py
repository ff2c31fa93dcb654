"""Signal equations, k-space, coil and noise against what theory says of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import rice

from monai_transfer.data.phantom.anatomy import TISSUES
from monai_transfer.data.phantom.physics import (
    RELAXATION,
    Protocol,
    coil_shading,
    draw_relaxation,
    kspace_crop,
    rician,
    signal,
)

ONE = np.array([1.0])


def test_gradient_echo_peaks_at_the_ernst_angle():
    tr, t1 = 22.0, 833.0
    found = minimize_scalar(
        lambda flip: -signal(Protocol("spoiled_gradient_echo", tr, 4.0, flip), ONE, ONE * t1, ONE * 80, ONE * 60)[0],
        bounds=(1, 89),
        method="bounded",
    )
    assert found.x == pytest.approx(np.rad2deg(np.arccos(np.exp(-tr / t1))), abs=0.01)


def test_gradient_echo_at_ninety_degrees_is_saturation_recovery():
    tissue = (ONE, ONE * 500, ONE * 60, ONE * 60)
    gradient = signal(Protocol("spoiled_gradient_echo", 400.0, 10.0, 90.0), *tissue)
    assert gradient == pytest.approx(signal(Protocol("spin_echo", 400.0, 10.0), *tissue))


def test_inversion_recovery_nulls_a_tissue_at_its_null_time():
    t1, tr = 2569.0, 9000.0
    null = t1 * np.log(2 / (1 + np.exp(-tr / t1)))
    nulled = signal(Protocol("inversion_recovery", tr, 100.0, ti=null), ONE, ONE * t1, ONE * 329, ONE * 58)
    assert nulled[0] == pytest.approx(0.0, abs=1e-12)


def test_t1_weighting_orders_the_tissues_of_the_head_as_radiologists_know_them():
    values = signal(Protocol("spin_echo", 500.0, 12.0), *np.array([RELAXATION[name] for name in TISSUES]).T)
    by_name = dict(zip(TISSUES, values, strict=True))
    assert by_name["fat"] > by_name["white"] > by_name["grey"] > by_name["lesion"] > by_name["csf"] > by_name["air"]


def test_relaxation_varies_between_patients_around_the_table():
    draws = np.stack([draw_relaxation(np.random.default_rng(seed)) for seed in range(300)])
    table = np.array([RELAXATION[name] for name in TISSUES])
    present = table[:, 0] > 0
    assert draws[:, present].mean(0) == pytest.approx(table[present], rel=0.02)
    spread = draws[:, present, 1].std(0) / table[present, 1]
    assert spread == pytest.approx(0.05, abs=0.01)


def test_kspace_crop_keeps_a_smooth_object_and_samples_it_in_the_middle_of_the_blocks():
    shape = (24, 32, 20)
    fine = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    wave = 2 * np.pi * np.array([1 / 24, 1 / 32, 1 / 20])

    def value(points: np.ndarray) -> np.ndarray:
        return 5.0 + np.cos(np.tensordot(wave, points, axes=1))

    coarse = np.stack(np.meshgrid(*[2 * np.arange(n // 2) + 0.5 for n in shape], indexing="ij"))
    found = kspace_crop(value(fine), 2)
    damping = np.prod([0.7 + 0.3 * np.cos(2 * np.pi * 2 / n) for n in shape])
    assert np.abs(found.imag).max() < 1e-4
    assert found.real == pytest.approx(5.0 + damping * (value(coarse) - 5.0), abs=1e-4)


def test_kspace_crop_blurs_what_is_too_fine_to_be_resolved():
    checkerboard = np.indices((16, 16, 16)).sum(0) % 2
    assert np.abs(kspace_crop(checkerboard, 2)) == pytest.approx(0.5, abs=1e-5)


def test_rician_noise_follows_the_rice_distribution():
    rng = np.random.default_rng(0)
    for amplitude in (0.0, 1.0, 6.0):
        values = rician(rng, np.full((40, 40, 40), amplitude, complex), 0.5)
        law = rice(amplitude / 0.5, scale=0.5)
        assert values.mean() == pytest.approx(law.mean(), rel=0.01)
        assert values.std() == pytest.approx(law.std(), rel=0.02)


def test_coil_shading_is_smooth_positive_and_as_strong_as_asked():
    axes = [np.linspace(-80, 80, 20)] * 3
    fields = [coil_shading(np.random.default_rng(1), strength, *axes) for strength in (0.0, 0.4, 1.0)]
    assert np.all(fields[0] == 1.0)
    assert fields[1].min() > 0
    assert fields[1].std() < fields[2].std()
    steps = [np.abs(np.diff(np.log(fields[2]), axis=axis)).max() for axis in range(3)]
    assert max(steps) < 0.15  # per 8 mm
