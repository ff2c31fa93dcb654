"""The random intensity transforms: what the papers say of them, and what MONAI expects of any transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_transfer.data import augmentation as a
from monai_transfer.errors import InputError

KINDS = {
    "gin": (a.RandGIN, a.RandGINd, {}, 1),
    "gin, statistics": (a.RandGIN, a.RandGINd, {"slope": 0.2, "restore": "statistics"}, 2),
    "ipa": (a.RandGIN, a.RandGINd, {"blend": True}, 1),
    "inversion": (a.RandContrastInversion, a.RandContrastInversiond, {}, 2),
    "curve": (a.RandAppearanceCurve, a.RandAppearanceCurved, {"falling": 0.5}, 2),
    "resolution": (a.RandPhysicalLowResolution, a.RandPhysicalLowResolutiond, {}, 1),
    "noise": (a.RandRelativeNoise, a.RandRelativeNoised, {}, 2),
    "stain": (a.RandStain, a.RandStaind, {}, 3),
    "hue": (a.RandHue, a.RandHued, {}, 3),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(18, 14), (10, 12, 8)])
def test_they_are_monai_transforms(kind, shape, device):
    array, dictionary, options, channels = KINDS[kind]
    affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.rand(channels, *shape, device=device), affine=affine, meta={"note": "kept"})
    before = image.clone()
    out = array(prob=1.0, **options).set_random_state(4)(image)
    assert torch.equal(image, before), "its input stays as it was"
    assert isinstance(out, MetaTensor) and out.meta["note"] == "kept" and torch.equal(out.affine, image.affine)
    assert out.shape == image.shape and out.dtype == torch.float32 and out.device == image.device
    assert torch.isfinite(out).all() and not torch.allclose(out, image)
    again = array(prob=1.0, **options).set_random_state(4)(image)
    assert torch.equal(again, out), "reseeded, the same"
    assert torch.equal(array(prob=0.0, **options)(image), image)
    half = array(prob=1.0, **options).set_random_state(4)(image.as_tensor().half())
    assert half.dtype == torch.float32
    on_cpu = array(prob=1.0, **options).set_random_state(4)(image.cpu())
    torch.testing.assert_close(on_cpu, out.cpu(), atol=1e-4, rtol=1e-4)  # drawn alike on every device
    assert isinstance(array(prob=1.0, **options)(image.cpu().numpy()), torch.Tensor)

    both = dictionary(["image", "again"], prob=1.0, **options)
    case = Compose([both]).set_random_state(4)({"image": image, "again": image, "label": 1})
    assert torch.equal(case["image"], case["again"]), "one draw for all keys"
    assert not torch.allclose(case["image"], image)
    with pytest.raises(KeyError):
        dictionary("other", **options)({"image": image})
    dictionary("other", allow_missing_keys=True, **options)({"image": image})


# ------------------------------------------------------------------------------------------------- GIN
def test_gin_keeps_the_norm_and_draws_anew_for_each_case():
    image = torch.randn(2, 12, 12, 12)
    gin = a.RandGIN(1.0).set_random_state(0)
    outs = [gin(image) for _ in range(40)]
    for out in outs:
        assert out.flatten(1).norm(dim=1) == pytest.approx(image.flatten(1).norm(dim=1).numpy(), rel=1e-3)
    assert not torch.allclose(outs[0], outs[1])
    alphas = []
    kernels = set()
    for _ in range(300):
        gin.randomize(image)
        alphas += gin.alphas
        kernels |= {tuple(weight.shape[-1] for weight, _ in gin.networks[0])}
    assert 0.45 < np.mean(alphas) < 0.55 and min(alphas) < 0.05 and max(alphas) > 0.95
    assert len(kernels) == 16, "1 or 3 by layer"
    weights = np.concatenate([weight.ravel() for weight, _ in gin.networks[0]])
    assert [weight.shape[:2] for weight, _ in gin.networks[0]] == [(2, 2)] * 4
    assert abs(weights.mean()) < 0.5 and 0.6 < weights.std() < 1.4


def test_gin_is_the_formula():
    """Written out once more, with the drawn weights."""
    image = torch.randn(1, 9, 9)
    gin = a.RandGIN(1.0, slope=0.01).set_random_state(2)
    out = gin(image)
    x = image[None]
    for n, (weight, shift) in enumerate(gin.networks[0]):
        x = torch.nn.functional.conv2d(x, torch.tensor(weight), torch.tensor(shift), padding=weight.shape[-1] // 2)
        x = torch.where(x < 0, 0.01 * x, x) if n < 3 else x
    mixed = gin.alphas[0] * x[0] + (1 - gin.alphas[0]) * image
    torch.testing.assert_close(out, mixed * image.norm() / mixed.norm(), rtol=1e-3, atol=1e-4)


def test_gin_changes_contrast_and_keeps_edges():
    """Tissues change their order of brightness often; where two meet stays an edge."""
    image = torch.zeros(1, 60, 60)
    image[:, :, 20:40], image[:, :, 40:] = 1.0, 2.0
    gin = a.RandGIN(1.0, restore="statistics", slope=0.2).set_random_state(0)
    falls = 0
    for _ in range(80):
        out = gin(image)[0, 30]
        falls += bool(out[50] < out[10])
        for inside in (slice(5, 15), slice(25, 35), slice(45, 55)):
            assert out[inside].std() < 1e-3 * out.std(), "a tissue stays one"
        assert out.mean() == pytest.approx(1.0, abs=0.2)
    assert 10 < falls < 70
    out = gin(image)
    assert float(out.mean()) == pytest.approx(1.0, abs=1e-4)
    assert float(out.std()) == pytest.approx(float(image.std()), rel=1e-3)


def test_blended_views_vary_smoothly_over_space():
    image = torch.randn(1, 32, 32)
    ipa = a.RandGIN(1.0, blend=True).set_random_state(0)
    out = ipa(image)
    views = [ipa._view(image, n, alpha) for n, alpha in zip(ipa.networks, ipa.alphas, strict=True)]
    share = (out - views[1]) / (views[0] - views[1])
    sure = (views[0] - views[1]).abs() > 0.1
    share = torch.where(sure, share, torch.nan)
    assert np.nanmin(share) >= -1e-2 and np.nanmax(share) <= 1.01 and np.nanstd(share) > 0.1
    assert np.nanmedian(share[0].diff(dim=0).abs()) < 0.05, "smooth"
    with pytest.raises(InputError, match="odd kernels"):
        a.RandGIN(kernels=(2,))
    with pytest.raises(InputError, match="channels"):
        a.RandGINd(["x", "y"])({"x": torch.rand(1, 8, 8), "y": torch.rand(2, 8, 8)})


# ------------------------------------------------------------------------------------------------- inversion and curves
def test_inversion():
    image = torch.randn(2, 20, 20)
    out = a.RandContrastInversion(1.0)(image)
    for before, after in zip(image, out, strict=True):
        assert np.corrcoef(before.flatten(), after.flatten())[0, 1] == pytest.approx(-1, abs=1e-5)
    torch.testing.assert_close(out.mean((1, 2)), image.mean((1, 2)), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std((1, 2)), image.std((1, 2)))
    sharp = a.RandContrastInversion(1.0, restore=False)(image)
    torch.testing.assert_close(sharp.amax((1, 2)), image.amax((1, 2)))
    share = [not torch.equal(x, image) for t in [a.RandContrastInversion(0.5).set_random_state(0)] for x in
             [t(image) for _ in range(200)]]  # fmt: skip
    assert 0.4 < np.mean(share) < 0.6


@pytest.mark.parametrize("falling", [0.0, 1.0])
def test_curves_keep_order_or_turn_it_round(falling):
    ramp = torch.linspace(-3, 5, 400).view(1, 20, 20)
    curve = a.RandAppearanceCurve(1.0, falling=falling, restore=False).set_random_state(0)
    bends = []
    for _ in range(50):
        out = curve(ramp).flatten()
        step = out.diff() * (-1 if falling else 1)
        assert (step >= -1e-5).all()
        assert out.min() == pytest.approx(-3, abs=1e-4) and out.max() == pytest.approx(5, abs=1e-4)
        bends.append(float((out - ramp.flatten()).abs().mean()))
    assert max(bends) > 0.8
    flat = torch.full((1, 4, 4), 2.0)
    assert torch.equal(curve(flat), flat)


# ---------------------------------------------------------------------------------------- resolution and colour
def test_low_resolution_removes_what_is_finer_than_it():
    fine = torch.tensor([0.0, 1.0]).repeat(16).view(1, 32, 1).expand(1, 32, 32).clone()
    coarse = torch.tensor([0.0] * 16 + [1.0] * 16).view(1, 32, 1).expand(1, 32, 32).clone()
    low = a.RandPhysicalLowResolution(1.0, coarsest=2.0).set_random_state(0)
    sizes = set()
    for _ in range(60):
        out = low(fine)
        sizes.add(low.shape[0])
        if low.shape[0] <= 18:
            assert out.std() < 0.5 * fine.std()
        assert low(coarse).std() > 0.9 * coarse.std()
    assert {16, 17, 24, 31} <= sizes <= set(range(16, 33))
    volume = MetaTensor(torch.rand(1, 16, 16, 6), affine=torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0])))
    low(volume)
    assert low.resolution[2] == 5.0 and low.shape[2] == 6 and 1 < low.resolution[0] == low.resolution[1] <= 2.0


def test_stain_jitter_acts_on_stains():
    """Pure haematoxylin stays on its line of colours; the factor is what was drawn; white stays nearly white."""
    absorption = torch.tensor([0.65, 0.70, 0.29])
    depth = torch.linspace(0.1, 2, 16).view(1, 4, 4)
    image = torch.exp(-absorption.view(3, 1, 1) / absorption.norm() * depth)
    stain = a.RandStain(1.0, 0.2, (0, 1)).set_random_state(0)
    stain.draw(image)
    stain.offsets = np.zeros(3)
    out = stain.apply(image)
    density = -torch.log(out)
    torch.testing.assert_close(
        density / density.norm(dim=0), (absorption / absorption.norm()).view(3, 1, 1).expand(3, 4, 4)
    )
    torch.testing.assert_close(density.norm(dim=0), float(stain.factors[0]) * depth[0])
    scaled = a.RandStain(1.0, 0.2, (-2, 3)).set_random_state(0)
    plain = a.RandStain(1.0, 0.2, (0, 1)).set_random_state(0)
    torch.testing.assert_close((scaled(image * 5 - 2) + 2) / 5, plain(image))
    with pytest.raises(InputError, match="3 colour channels"):
        a.RandStain(1.0)(torch.rand(1, 4, 4))


def test_hue_leaves_grey_and_brightness():
    image = torch.rand(3, 8, 8)
    hue = a.RandHue(1.0, hue=0.5, saturation=(0.5, 1.5)).set_random_state(0)
    torch.testing.assert_close(hue(image).mean(0), image.mean(0))
    grey = torch.rand(1, 8, 8).expand(3, 8, 8)
    torch.testing.assert_close(hue(grey), grey.clone())
    turned = a.RandHue(1.0, hue=(0.25, 0.25), saturation=(1, 1))
    torch.testing.assert_close((turned(image) - image.mean(0)).norm(dim=0), (image - image.mean(0)).norm(dim=0))
    assert -0.5 <= min(d := _turns(hue, image)) < -0.4 and 0.4 < max(d) <= 0.5


def _turns(hue, image):
    found = []
    for _ in range(200):
        hue.randomize(image)
        found.append(hue.turn)
    return found


def test_noise_is_as_strong_on_any_scale():
    image = torch.rand(1, 40, 40)
    noise = a.RandRelativeNoise(1.0, most=0.3).set_random_state(0)
    shares = []
    for _ in range(60):
        share = float((noise(image) - image).std() / image.std())
        shares.append(share)
        state = noise.share
        assert share == pytest.approx(state, rel=0.1, abs=1e-3)
    assert max(shares) > 0.25 and min(shares) < 0.05
    one, two = (a.RandRelativeNoise(1.0).set_random_state(1)(x) for x in (image, 500 * image - 90))
    torch.testing.assert_close(500 * one - 90, two, rtol=1e-4, atol=1e-2)
    with pytest.raises(InputError, match="not negative"):
        a.RandRelativeNoise(most=-1)
