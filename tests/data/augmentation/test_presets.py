"""Presets are plain data that MONAI builds; what they do, in millimetres, on thick slices, small crops and pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, MetaTensor

from monai_transfer.data.augmentation.presets import PRESETS, as_transforms, preset, thin_axes
from monai_transfer.data.augmentation.sampling import outside
from monai_transfer.errors import InputError

CASES = {
    "cube": (3, [1.0, 1.0, 1.0], [32, 32, 32], [0], 1),
    "thick slices": (3, [0.7, 0.7, 5.0], [48, 48, 12], [0], 1),
    "picture": (2, None, [64, 64], [0, 1], 3),
}


def case(dims, shape, channels, device="cpu"):
    image = MetaTensor(torch.rand(channels, *shape, device=device))
    label = MetaTensor((torch.rand(1, *shape, device=device) > 0.7).to(torch.uint8))
    return {"image": image, "label": label}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("kind", CASES)
def test_every_preset_builds_runs_and_repeats(name, kind, device):
    dims, spacing, patch, flips, channels = CASES[kind]
    if name == "colour" and channels != 3:
        pytest.skip("wants RGB")
    configs = preset(name, dims, spacing, patch, flips, foreground=0.3)
    assert yaml.safe_load(yaml.safe_dump(configs)) == configs == json.loads(json.dumps(configs)), "plain data"
    chain = as_transforms(configs)
    item = case(dims, [n + 9 for n in patch], channels, device)
    outs = [chain.set_random_state(5)(item) for _ in range(2)]
    for key in ("image", "label"):
        assert list(outs[0][key].shape[1:]) == patch and isinstance(outs[0][key], MetaTensor)
        torch.testing.assert_close(outs[0][key], outs[1][key])
    assert outs[0]["image"].dtype == torch.float32 and torch.isfinite(outs[0]["image"]).all()
    assert set(outs[0]["label"].unique().tolist()) <= {0, 1}
    assert not torch.equal(chain(item)["image"], outs[0]["image"])


@pytest.mark.parametrize("name", ["light", "standard"])
def test_draws_on_thick_slices_in_millimetres(name):
    """Turns are about the thick axis alone, its slices are not mixed, and nothing is padded."""
    dims, spacing, patch, flips, _ = CASES["thick slices"]
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    # a foreground in slice 6 alone: any turn out of the plane, or scaling across, would spread it
    slices = torch.zeros(1, 90, 90, 12)
    slices[..., 6] = 1
    for given in (spacing, None):  # told by the preset, or by each image
        chain = as_transforms(preset(name, dims, given, patch, flips))
        geometry = chain.transforms[0]
        angles = []
        for seed in range(60):
            out = geometry.set_random_state(seed)({"image": MetaTensor(slices, affine=affine), "label": slices})
            assert out["image"][..., 6].min() > 0.999 and float(out["image"].sum()) == pytest.approx(48 * 48, rel=1e-4)
            angles.append(geometry.array.angles)
            assert outside(geometry.array.matrix, patch, slices.shape[1:]) == 0
        angles = np.array(angles)
        assert (angles[:, :2] == 0).all() or given is None
        assert np.abs(angles[:, 2]).max() > (0.2 if name == "light" else 0.4)


def test_thin_axes():
    assert thin_axes([128, 128, 128], [1, 1, 1]) == []
    assert thin_axes([128, 128, 30], [1, 1, 2]) == [2], "few voxels"
    assert thin_axes([64, 64, 64], [4, 1, 1]) == [0], "thick slices, whichever axis"
    whole = preset("standard", 3, [4.0, 1.0, 1.0], [16, 64, 64])[0]
    assert whole["rotate"] == [0.52, 0.0, 0.0] and whole["scale_axes"] == [1, 2]


def test_blur_and_low_resolution_are_round_in_space():
    configs = {c["_target_"].rsplit(".", 1)[-1]: c for c in preset("standard", 3, [1.0, 1.0, 5.0], [64, 64, 16])}
    smooth = configs["RandGaussianSmoothd"]
    widths = [np.array(smooth[f"sigma_{a}"]) * mm for a, mm in zip("xyz", (1, 1, 5), strict=True)]
    assert all(width == pytest.approx([0.5, 1.0]) for width in widths)
    low = ConfigParser(configs["RandPhysicalLowResolutiond"] | {"prob": 1.0}).get_parsed_content()
    low.set_random_state(0)({"image": torch.rand(1, 32, 32, 10)})
    assert low.array.resolution[2] == 5.0 and 1 < low.array.resolution[0] <= 2


def test_what_tasks_allow():
    named = {
        task: [c["_target_"].rsplit(".", 1)[-1] for c in preset("standard", 3, [1, 1, 1], [32] * 3, [0], task)]
        for task in ("segmentation", "regression", "classification")
    }
    assert named["regression"] == named["segmentation"] == named["classification"]
    assert "scale" not in preset("standard", 3, [1, 1, 1], [32] * 3, [0], "regression")[0], "its number may be of mm"
    keys = {tuple(c["keys"]) for c in preset("standard", 2, None, [32, 32], [0], "classification")}
    assert keys == {("image",)}
    assert not any("RandFlipd" in c["_target_"] for c in preset("standard", 3, [1, 1, 1], [32] * 3, []))


def test_pictures_without_an_upright_turn_all_the_way_round():
    assert preset("standard", 2, None, [64, 64], [0, 1])[0]["rotate"] == [pytest.approx(np.pi)]
    assert preset("standard", 2, None, [64, 64], [0])[0]["rotate"] == [0.52]


def test_half_of_each_batch_is_plain_in_a_stock_loader():
    """The geometry is off here, so a plain case is the case itself."""
    configs = [c for c in preset("randomised", 2, None, [16, 16], [], "classification") if "Mixed" in c["_target_"]]
    data = [{"image": torch.rand(1, 16, 16) + n} for n in range(40)]
    for workers in (0, 2):
        loader = DataLoader(
            CacheDataset(data, as_transforms(configs), progress=False), batch_size=4, num_workers=workers
        )
        for batch_number, batch in enumerate(loader):
            same = [torch.equal(image, data[4 * batch_number + n]["image"]) for n, image in enumerate(batch["image"])]
            assert sum(same) == 2


def test_randomised_all_leaves_no_case_plain():
    draw = as_transforms(preset("randomised_all", 2, None, [16, 16], [], "classification", parts="intensity"))
    half = as_transforms(preset("randomised", 2, None, [16, 16], [], "classification", parts="intensity"))
    image = torch.rand(1, 16, 16)

    def plain(transforms):
        """How many of 40 draws are the image times a number, plus one: ``light`` does no more."""
        transforms.set_random_state(0)
        drawn = (transforms({"image": image.clone()})["image"] for _ in range(40))
        return sum(abs(np.corrcoef(image.ravel(), one.ravel())[0, 1] - 1) < 1e-5 for one in drawn)

    assert (plain(draw), plain(half)) == (0, 20)


def test_bundles_can_hold_them():
    """As part of a config with references, as bundles have them."""
    parser = ConfigParser(
        {"pre": {"_target_": "monai.transforms.Compose", "transforms": preset("standard", 2, None, [8, 8], [0])}}
    )
    out = parser.get_parsed_content("pre")(case(2, [20, 20], 1))
    assert out["image"].shape == (1, 8, 8)


@pytest.mark.parametrize("name", PRESETS)
def test_its_parts_are_the_whole(name):
    whole, geometry, intensity = (
        preset(name, 2, None, [16, 16], [0], parts=parts) for parts in ("all", "geometry", "intensity")
    )
    assert geometry + intensity == whole
    assert not any("label" in config.get("keys", []) for config in intensity)


def test_refused():
    with pytest.raises(InputError, match="no augmentation preset"):
        preset("strong", 2, None, [8, 8])
    with pytest.raises(InputError, match="no parts"):
        preset("light", 2, None, [8, 8], parts="half")
    with pytest.raises(InputError, match="for 3D images"):
        preset("light", 3, [1, 1], [8, 8, 8])


def test_the_packages_names_are_found():
    from monai_transfer.data import augmentation

    assert all(callable(getattr(augmentation, name)) for name in augmentation.__all__)
    with pytest.raises(AttributeError, match="RandStrong"):
        _ = augmentation.RandStrong
