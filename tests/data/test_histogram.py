import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.stats import ks_2samp

from monai_transfer.data.histogram import HistogramMatchToTargetd, fit_landmarks, match_to_landmarks
from monai_transfer.errors import InputError


def test_undoes_a_monotone_change_of_contrast():
    rng = np.random.default_rng(0)
    target = rng.gamma(2.0, size=(1, 24, 24, 24))
    source = np.sqrt(target) * 40 + 7
    matched = match_to_landmarks(source, fit_landmarks([target], 1024))
    np.testing.assert_allclose(np.quantile(matched, [0.1, 0.5, 0.9]), np.quantile(target, [0.1, 0.5, 0.9]), rtol=1e-3)
    assert np.abs(matched - target).mean() < 0.01


def test_distributions_agree_with_a_fresh_target_sample():
    rng = np.random.default_rng(0)
    landmarks = fit_landmarks([rng.gamma(2.0, size=(1, 50, 50)) for _ in range(8)])
    matched = match_to_landmarks(rng.normal(100, 20, size=(1, 50, 50)), landmarks)
    assert ks_2samp(matched.ravel(), rng.gamma(2.0, size=2500)).statistic < 0.05


def test_order_is_kept_and_matching_twice_changes_nothing():
    rng = np.random.default_rng(1)
    landmarks, x = fit_landmarks([rng.random((1, 30, 30))]), rng.normal(size=(1, 30, 30))
    once = match_to_landmarks(x, landmarks)
    assert (np.diff(once.ravel()[np.argsort(x.ravel())]) >= 0).all()
    np.testing.assert_allclose(match_to_landmarks(once, landmarks), once, atol=5e-3)


def test_landmarks_are_mean_quantiles():
    a, b = np.arange(11.0), np.arange(11.0) * 3 + 1
    assert fit_landmarks([a[None], torch.tensor(b)[None]], 3) == pytest.approx([0.5, 10.5, 20.5])


def test_air_stays_one_value():
    rng = np.random.default_rng(2)
    image = np.where(rng.random((40, 40)) < 0.6, 0.0, rng.normal(100, 10, (40, 40)))
    landmarks = fit_landmarks([np.where(rng.random((40, 40)) < 0.6, 0.0, rng.normal(50, 5, (40, 40)))])
    matched = match_to_landmarks(image, landmarks)
    assert len(np.unique(matched[image == 0])) == 1
    assert matched[image == 0][0] == pytest.approx(0, abs=1.0)
    assert matched[image > 0].mean() == pytest.approx(50, abs=2)
    inside = match_to_landmarks(image, fit_landmarks([image * 2], nonzero=True), nonzero=True)
    assert (inside[image == 0] == 0).all()
    assert inside[image > 0].mean() == pytest.approx(2 * image[image > 0].mean(), rel=1e-3)


def test_constant_images_and_nothing_to_fit():
    assert np.isfinite(match_to_landmarks(np.ones((1, 4, 4)), [0.0, 1.0, 5.0])).all()
    assert match_to_landmarks(np.ones((1, 4, 4)), [0.0, 1.0, 5.0])[0, 0, 0] == 1.0
    np.testing.assert_array_equal(match_to_landmarks(np.zeros((1, 2, 2)), [1.0, 2.0], nonzero=True), 0)
    with pytest.raises(InputError, match="needs target images"):
        HistogramMatchToTargetd("image")
    with pytest.raises(InputError, match="finite"):
        fit_landmarks([np.array([np.nan, 1.0])])


def test_transform_keeps_geometry_and_its_landmarks_go_through_a_config():
    targets = [{"image": torch.randn(1, 10, 10) * 3 + 50}, {"image": torch.randn(1, 8, 8) * 3 + 50}]
    fitted = HistogramMatchToTargetd("image", targets, count=64)
    again = HistogramMatchToTargetd("image", landmarks=json.loads(json.dumps(fitted.landmarks)))
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    case = {"image": MetaTensor(torch.rand(2, 6, 6), affine=affine), "label": 1}
    out = again(case)
    torch.testing.assert_close(out["image"], fitted(case)["image"])
    torch.testing.assert_close(out["image"].affine, affine)
    assert out["image"].dtype == torch.float32
    assert out["image"].mean() == pytest.approx(50, abs=1.5)
    assert out["label"] == 1


def test_what_is_not_finite_and_what_is_no_landmark_is_refused():
    with pytest.raises(InputError, match="not finite"):  # it would make the whole image constant
        match_to_landmarks(np.array([[1.0, np.nan], [2.0, 3.0]]), [0.0, 1.0, 2.0])
    for landmarks in ([3.0, 2.0, 1.0], [1.0], [0.0, float("nan")]):
        with pytest.raises(InputError, match="never fall"):
            HistogramMatchToTargetd("image", landmarks=landmarks)
