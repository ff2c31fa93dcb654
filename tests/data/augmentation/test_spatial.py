"""Rotations and magnifications measured in millimetres on what comes out, not read off the arguments."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from monai_transfer.data.augmentation import RandPhysicalAffine, RandPhysicalAffined
from monai_transfer.data.augmentation.sampling import outside
from monai_transfer.errors import InputError

SPACING = (1.0, 1.0, 4.0)


def blob(shape, spacing, direction, long=9.0, short=2.5):
    """A Gaussian rod through the middle of an image, along a direction in mm."""
    axes = np.meshgrid(
        *[(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing, strict=True)], indexing="ij"
    )
    place = np.stack(axes, -1)
    unit = np.asarray(direction, float) / np.linalg.norm(direction)
    along = place @ unit
    across = (place**2).sum(-1) - along**2
    return torch.as_tensor(np.exp(-(along**2) / (2 * long**2) - across / (2 * short**2)), dtype=torch.float32)[None]


def moments(image, spacing):
    """Covariance in mm2 of the rod as a mass, and its centre (mm from the middle)."""
    mass = image[0].double().numpy()
    axes = np.meshgrid(
        *[(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(mass.shape, spacing, strict=True)], indexing="ij"
    )
    place = np.stack(axes, -1).reshape(-1, mass.ndim)
    weight = mass.ravel() / mass.sum()
    centre = weight @ place
    return (place - centre).T @ ((place - centre) * weight[:, None]), centre


def axis_of(image, spacing):
    values, vectors = np.linalg.eigh(moments(image, spacing)[0])
    return vectors[:, -1], np.sqrt(values)


@pytest.mark.parametrize("about", [0, 1, 2])
def test_a_rotation_is_one_in_millimetres(about, device):
    """A rod in slices of 4 mm turns by the drawn angle, whichever axis it turns about, and keeps its shape."""
    first, second = [a for a in range(3) if a != about]
    direction = np.zeros(3)
    direction[first] = 1
    image = blob((72, 72, 24), SPACING, direction)
    limits = [0.0, 0.0, 0.0]
    limits[about] = 0.6
    turn = RandPhysicalAffine(rotate=limits, rotate_prob=1.0, spacing=SPACING, random_center=False).set_random_state(0)
    told, seen = [], []
    for _ in range(4):
        found, widths = axis_of(turn(image.to(device)).cpu(), SPACING)
        told.append(turn.angles[about])
        seen.append(math.atan2(found[second] * np.sign(found[first]), abs(found[first])))
        assert abs(found[about]) < 0.03
        assert widths[2] == pytest.approx(9.0, rel=0.05)
    assert max(np.abs(told)) > 0.3
    # the patch's axes turn by the angle, so what it shows turns back by it
    assert seen == pytest.approx([-angle for angle in told], abs=0.03)


def test_magnification_is_the_same_in_millimetres_along_every_axis():
    image = blob((64, 64, 24), SPACING, (1, 0, 0), long=6, short=6)
    grow = RandPhysicalAffine(scale=(1.3, 1.3), scale_prob=1.0, spacing=SPACING, random_center=False)
    before, after = (np.sqrt(np.diag(moments(i, SPACING)[0])) for i in (image, grow(image)))
    assert after / before == pytest.approx([1.3, 1.3, 1.3], rel=0.05)
    flat = RandPhysicalAffine(scale=(1.3, 1.3), scale_prob=1.0, scale_axes=[0, 1], spacing=SPACING, random_center=False)
    after = np.sqrt(np.diag(moments(flat(image), SPACING)[0]))
    assert after / before == pytest.approx([1.3, 1.3, 1.0], rel=0.03)


def test_draws_spread_over_their_ranges():
    turn = RandPhysicalAffine((8, 8), rotate=0.5, scale=(0.5, 2.0), rotate_prob=0.5, scale_prob=0.5).set_random_state(0)
    angles, factors = [], []
    for _ in range(600):
        turn.randomize(torch.zeros(1, 32, 32))
        angles.append(turn.angles[0])
        factors.append(turn.factors[0])
    angles, factors = np.array(angles), np.array(factors)
    assert 0.44 < (angles != 0).mean() < 0.56 and 0.44 < (factors != 1).mean() < 0.56
    assert -0.5 <= angles.min() < -0.45 and 0.45 < angles.max() <= 0.5
    assert 0.5 <= factors.min() < 0.55 and 1.8 < factors.max() <= 2.0
    assert abs(np.log(factors).mean()) < 0.05, "halving is as likely as doubling"


def test_the_images_own_affine_tells_millimetres_and_stays_true():
    """Without ``spacing`` the affine counts; a structure's place in the world does not move."""
    affine = torch.diag(torch.tensor([-1.0, 2.0, 4.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([30.0, -20.0, 7.0])
    plain = blob((48, 40, 20), (1, 2, 4), (1, 1, 1))
    image = MetaTensor(torch.roll(plain, (4, -3, 2), (1, 2, 3)), affine=affine, meta={"filename_or_obj": "a.nii"})

    def world(x):
        mass = x[0].double().numpy()
        index = np.stack(np.meshgrid(*map(np.arange, mass.shape), indexing="ij"), -1).reshape(-1, 3)
        centre = (mass.ravel() / mass.sum()) @ index
        return x.affine.numpy()[:3, :3] @ centre + x.affine.numpy()[:3, 3]

    turn = RandPhysicalAffine(rotate=(0.4, 0.3, 0.2), rotate_prob=1.0, scale=(0.9, 1.1), scale_prob=1.0)
    out = turn.set_random_state(1)(image)
    assert out.meta["filename_or_obj"] == "a.nii"
    assert world(out) == pytest.approx(world(image), abs=0.4)
    moved = image.affine.numpy() @ turn.matrix
    assert out.affine.numpy() == pytest.approx(moved)
    lengths = np.linalg.norm(moved[:3, :3], axis=0) * turn.factors
    assert lengths == pytest.approx([1, 2, 4]), "axes keep their voxel size, but for the magnification"


def test_without_a_draw_voxels_are_copied():
    image = torch.randint(0, 1000, (2, 20, 24, 9))
    cut = RandPhysicalAffine((8, 8, 8), rotate=(1, 1, 1), rotate_prob=0.0, scale_prob=0.0).set_random_state(0)
    out = cut(image)
    start = cut.matrix[:3, 3].astype(int)
    assert out.dtype == image.dtype
    assert torch.equal(out, image[:, start[0] : start[0] + 8, start[1] : start[1] + 8, start[2] : start[2] + 8])
    starts = set()
    for _ in range(200):
        cut(image)
        starts.add(int(cut.matrix[2, 3]))
    assert starts == {0, 1}, "both places of 8 in 9 slices"
    small = RandPhysicalAffine((6, 6))(torch.ones(1, 3, 8))
    assert small.sum() == 18 and (small[0, 1:4].all() or small[0, 2:5].all()), (
        "a smaller image lies in the middle of its padding"
    )


def test_turned_patches_stay_inside_where_they_can():
    turn = RandPhysicalAffine((24, 24, 8), rotate=(0, 0, 0.5), rotate_prob=1.0, scale=(0.8, 1.2), scale_prob=1.0,
                              scale_axes=[0, 1], spacing=(1, 1, 5)).set_random_state(0)  # fmt: skip
    image = torch.ones(1, 48, 48, 8)
    for _ in range(30):
        assert turn(image).min() > 0.999
        assert outside(turn.matrix, (24, 24, 8), image.shape[1:]) == 0
    voxels = RandPhysicalAffine((24, 24, 8), rotate=(0.5, 0.5, 0), rotate_prob=1.0).set_random_state(0)
    assert max(float((voxels(image) == 0).float().mean()) for _ in range(30)) > 0.1, "what turning voxels does"


@pytest.mark.parametrize("mode", ["zeros", "border", "reflection"])
def test_labels_keep_their_values_and_follow_the_image(mode, device):
    label = torch.zeros(1, 40, 40, dtype=torch.uint8)
    label[0, 10:30, 12:20] = 3
    case = {"image": MetaTensor(label.float().to(device)), "label": MetaTensor(label.to(device))}
    turn = RandPhysicalAffined(["image", "label"], (32, 32), mode=["bilinear", "nearest"], padding_mode=mode,
                               rotate=math.pi, rotate_prob=1.0, scale=(0.7, 1.4), scale_prob=1.0)  # fmt: skip
    for seed in range(5):
        out = turn.set_random_state(seed)(case)
        assert out["label"].dtype == torch.uint8 and set(out["label"].unique().tolist()) <= {0, 3}
        assert ((out["image"] > 1.5) == (out["label"] > 0)).float().mean() > 0.98
        assert out["image"].device.type == device.type


def test_seeds_repeat_and_compose_passes_them_on():
    case = {"image": torch.rand(1, 30, 30), "label": (torch.rand(1, 30, 30) > 0.5).float()}
    turn = RandPhysicalAffined(["image", "label"], (16, 16), rotate=1.0, rotate_prob=1.0, foreground=0.5)
    chain = Compose([turn])
    outs = [chain.set_random_state(7)(case)["image"] for _ in range(2)]
    assert torch.equal(*outs) and not torch.equal(outs[0], chain(case)["image"])


def test_a_share_of_patches_holds_each_class():
    label = torch.zeros(1, 60, 60)
    label[0, :40, :40] = 1
    label[0, 55, 3] = 2  # one voxel
    cut = RandPhysicalAffined("label", (10, 10), foreground=0.5, mode="nearest").set_random_state(0)
    outs = [cut({"label": label})["label"] for _ in range(400)]
    rare = np.mean([bool((o == 2).any()) for o in outs])
    assert 0.2 < rare < 0.4, "about a quarter for the rare class, and a few by chance"
    empty = {"label": torch.zeros(1, 20, 20)}
    assert cut(empty)["label"].shape == (1, 10, 10)


def test_predictions_on_a_patch_go_back():
    image = MetaTensor(blob((30, 30, 12), SPACING, (1, 1, 0)), affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))
    turn = Compose([RandPhysicalAffined("image", rotate=(0, 0, 0.4), rotate_prob=1.0, random_center=False)])
    case = turn.set_random_state(0)({"image": image})
    case["pred"] = case["image"]
    back = Invertd("pred", turn, orig_keys="image", nearest_interp=False)(case)["pred"]
    assert back.shape == image.shape and torch.allclose(back.affine, image.affine.double(), atol=1e-9)
    assert (back - image).abs().mean() < 0.02


def test_refused():
    with pytest.raises(InputError, match="turn about 3 axes"):
        RandPhysicalAffine(rotate=(1, 2))(torch.zeros(1, 4, 4, 4))
    with pytest.raises(InputError, match="of 2 axes"):
        RandPhysicalAffine((4, 4, 4))(torch.zeros(1, 8, 8))
    with pytest.raises(InputError, match="positive"):
        RandPhysicalAffine(spacing=(1, 0))
    with pytest.raises(InputError, match="no padding"):
        RandPhysicalAffine(padding_mode="wrap")
    with pytest.raises(InputError, match="first key"):
        RandPhysicalAffined(["image", "label"])({"image": torch.zeros(1, 4, 4), "label": torch.zeros(1, 5, 4)})
