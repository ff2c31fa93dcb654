"""The planner's rules against what nnU-Net's planner gives, and against the invariants that a network needs."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from monai_transfer.bundle.fit import DataFit
from monai_transfer.bundle.planning.budget import plan_budget, selects_epoch
from monai_transfer.bundle.planning.dense import plan_dense
from monai_transfer.bundle.planning.intensities import by_channel, channel_modalities, normalisation
from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.bundle.planning.size import get_size
from monai_transfer.bundle.planning.spacing import coarsened, is_thick
from monai_transfer.bundle.planning.topology import fitted_patch, topology
from monai_transfer.errors import InputError
from monai_transfer.inspection.description import DataDescription
from monai_transfer.manifest import Manifest

SMALL = get_size("small")


def fit(shape, spacing, size=None, channels=1) -> DataFit:
    shape, volume = list(shape), len(shape)
    told = DataDescription("segmentation", "CT", volume, channels, [], [], 1, 1, shape, spacing, None, None, None, {})
    described = {None: dataclasses.replace(told, size=size or {})}
    return DataFit(len(shape), ".nii.gz", spacing is None, channels, spacing, shape, 0, 1, 0, 1, 0, described)


@pytest.mark.parametrize(
    ("patch", "spacing", "strides"),
    [
        # the rule of nnU-Net 2.8.1's get_pool_and_conv_props, by hand
        ([128, 128, 128], [1, 1, 1], [[2, 2, 2]] * 5),
        ([40, 56, 40], [1, 1, 1], [[2, 2, 2]] * 3),
        ([192, 192, 48], [0.7, 0.7, 3.0], [[2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]),
        ([512, 512], [1, 1], [[2, 2]] * 7),
    ],
)
def test_strides_follow_nnu_net(patch, spacing, strides):
    found = topology(patch, spacing, most=7)
    assert found.strides[0] == [1] * len(patch)
    assert found.strides[1:] == strides
    assert all(p // u >= 4 for p, u in zip(patch, found.unit, strict=True))


def test_kernels_do_not_span_thick_slices():
    found = topology([192, 192, 48], [0.7, 0.7, 3.0], 7)
    assert found.kernels == [[3, 3, 1], [3, 3, 1], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]]
    assert topology([64] * 3, [1.0, 1.2, 1.9], 3).kernels == [[3] * 3] * 4


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(4, 600), min_size=2, max_size=3),
    st.lists(st.floats(0.3, 8), min_size=3, max_size=3),
    st.integers(500, 500_000),
)
def test_patches_stay_within_their_voxels_and_the_image(shape, spacing, voxels):
    patch = fitted_patch(shape, spacing[: len(shape)], voxels)
    assert all(1 <= p <= n for p, n in zip(patch, shape, strict=True))
    assert math.prod(patch) <= voxels or 1 in patch
    inner = [(p + 1) * s for p, s, n in zip(patch, spacing, shape, strict=False) if p < n]
    assert not inner or max(inner) - min(inner) <= 2.01 * max(spacing), "a cube in mm, where the image reaches"


def test_spacing_is_the_datas_own_until_a_patch_sees_too_little():
    assert coarsened([1, 1, 1], [36, 50, 36], 48**3, 900.0)[0] == [1, 1, 1]
    found, why = coarsened([0.7, 0.7, 5.0], [512, 512, 40], 48**3, None)
    assert found[2] == 5.0 and found[0] == found[1] > 0.7, "thick slices are left alone"
    assert "quarter of the median image" in why
    shape = [round(512 * 0.7 / found[0])] * 2 + [40]
    assert 0.25 <= 48**3 / math.prod(shape) < 0.28
    assert is_thick([0.7, 0.7, 5.0]) == [False, False, True]


def test_coarsening_stops_before_the_smallest_class_is_lost():
    free, _ = coarsened([1, 1, 1], [400, 400, 400], 48**3, None)
    held, why = coarsened([1, 1, 1], [400, 400, 400], 48**3, 500.0)
    assert 1 < held[0] < free[0] and 64 <= 500 / math.prod(held) < 64 * 1.2
    assert "smallest class keeps 64 voxels" in why
    same, why = coarsened([1, 1, 1], [400, 400, 400], 48**3, 60.0)
    assert same == [1, 1, 1] and "would lose" in why


@pytest.mark.parametrize("size", ["small", "medium"])
@pytest.mark.parametrize(
    ("shape", "spacing"), [([36, 50, 36], [1.0, 1.0, 1.0]), ([320, 320, 24], [0.7, 0.7, 4.0]), ([256, 256], None)]
)
def test_the_planned_network_takes_its_patch_within_the_memory(shape, spacing, size):
    reasons = Reasons()
    plan = plan_dense(fit(shape, spacing, {"a": 0.1}), 2, get_size(size), reasons)
    assert set(reasons.to_dict()) >= {"spacing", "patch", "batch_size", "network", "strides", "crops"}
    thick = spacing is not None and max(plan.spacing) >= 2 * min(plan.spacing)
    assert plan.network["_target_"].endswith("DynUNet" if thick else ".UNet")
    network = ConfigParser({"network": plan.network}).get_parsed_content("network").eval()
    if size == "small":
        with torch.no_grad():
            assert network(torch.zeros(1, 1, *plan.patch)).shape == (1, 2, *plan.patch)
    assert "GiB" in reasons.why("batch_size") and plan.batch_size >= 2


def test_a_small_memory_costs_batch_then_voxels():
    narrow = dataclasses.replace(SMALL, memory=0.01)
    whole = plan_dense(fit([200] * 3, [1.0] * 3), 2, SMALL, Reasons())
    less = plan_dense(fit([200] * 3, [1.0] * 3), 2, narrow, Reasons())
    assert less.batch_size == 2 < whole.batch_size and math.prod(less.patch) < math.prod(whole.patch)


def test_what_is_asked_for_is_kept():
    reasons = Reasons()
    options = {"spacing": [2.0] * 3, "patch": [32, 32, 16], "batch_size": 3, "name": "DynUNet"}
    plan = plan_dense(fit([100] * 3, [1.0] * 3), 3, SMALL, reasons, **options)
    assert (plan.spacing, plan.patch, plan.batch_size) == ([2.0] * 3, [32, 32, 16], 3)
    assert plan.network["_target_"].endswith("DynUNet") and "as asked" in reasons.why("patch")
    with pytest.raises(InputError, match="no planned network is called 'Unet'"):
        plan_dense(fit([100] * 3, [1.0] * 3), 3, SMALL, Reasons(), name="Unet")


@pytest.mark.parametrize(
    ("sizes", "crops"),
    [
        ({"a": 0.1}, "foreground"),
        ({"a": 0.1, "b": 0.05}, "foreground"),
        ({"a": 0.1, "b": 0.005}, "classes"),
        ({}, "foreground"),
    ],
)
def test_rare_classes_are_drawn_as_often(sizes, crops):
    wide = {"spacing": [1.0] * 3}
    assert plan_dense(fit([200] * 3, [1.0] * 3, sizes), 3, SMALL, Reasons(), **wide).crops == crops
    assert plan_dense(fit([40] * 3, [1.0] * 3, sizes), 3, SMALL, Reasons()).crops == "random"


def test_ct_has_one_window_by_its_foreground():
    foreground = {"p0.5": -50.0, "p99.5": 150.0, "mean": 60.0, "std": 40.0}
    (step,) = normalisation("CT", foreground, (-1000, 900), 0.0, False, Reasons())
    transform = ConfigParser({"t": step}).get_parsed_content("t")
    image = torch.tensor([[-1000.0, -50.0, 60.0, 100.0, 150.0, 3000.0]])
    expected = (image.clip(-50, 150) - 60) / 40
    torch.testing.assert_close(torch.as_tensor(transform({"image": image})["image"]), expected, atol=1e-4, rtol=0)
    (step,) = normalisation("MR", {}, (0, 1), 0.5, False, Reasons())
    assert step["nonzero"] is True and step["_target_"].endswith("NormalizeIntensityd")


def test_channels_of_unlike_modality_are_normalised_each_by_its_own():
    """PET by its own mean and spread, CT by one window; in order, and inverted back to the image's grid."""
    numbers = {"p0.5": -50.0, "p99.5": 150.0, "mean": 60.0, "std": 40.0}
    reasons = Reasons()
    steps = by_channel(["PET", "CT"], [{}, numbers], 0.0, reasons)
    assert reasons.to_dict()["normalise"]["value"] == ["PET z-score", "CT -50 to 150"]
    affine = torch.diag(torch.tensor([2.0, 2, 1, 1], dtype=torch.float64))
    image = MetaTensor(torch.rand(2, 6, 7, 8) * 300 - 100, affine=affine)
    wider = {"_target_": "monai.transforms.Spacingd", "keys": ["image"], "pixdim": [1, 1, 1]}
    given = ConfigParser({"t": [wider, *steps], "plain": steps})
    plain = Compose(given.get_parsed_content("plain"))({"image": image.clone()})
    assert list(plain) == ["image"]
    pet, ct = plain["image"].as_tensor()
    torch.testing.assert_close(ct, (image.as_tensor()[1].clip(-50, 150) - 60) / 40, atol=1e-4, rtol=0)
    torch.testing.assert_close(pet, (image[0] - image[0].mean()).as_tensor() / image[0].std(False).as_tensor())
    chain = Compose(given.get_parsed_content("t"))
    seen = chain({"image": image})
    assert seen["image"].shape == (2, 11, 13, 8)
    seen["pred"] = MetaTensor(
        torch.ones(3, 11, 13, 8), meta=seen["image"].meta, applied_operations=seen["image"].applied_operations
    )
    assert Invertd("pred", chain, orig_keys="image")(seen)["pred"].shape == (3, 6, 7, 8)
    assert by_channel(["MR T1", "MR T2"], [{}, {}], 0.0, Reasons()) is None
    assert by_channel(["PET", "CT"], [{}, {}], 0.0, Reasons()) is None, "no mask tells the foreground"


@pytest.mark.parametrize(
    ("modality", "names", "expected"),
    [
        ("PET/CT", {"0": "PET", "1": "CT"}, ["PET", "CT"]),
        ({"0": "CT", "1": "PT"}, {"0": "a", "1": "b"}, ["CT", "PT"]),
        ("CT", {"0": "arterial", "1": "venous"}, ["CT", "CT"]),
        ("MR", {"0": "T1", "1": "T2"}, ["T1", "T2"]),
        (None, {}, ["", ""]),
    ],
)
def test_the_modality_of_each_channel(modality, names, expected):
    manifest = Manifest(name="m", description="", task="segmentation", modality=modality, channel_names=names)
    assert channel_modalities(manifest, 2) == expected


def test_residual_blocks_are_an_option_of_dynunet():
    plan = plan_dense(fit([64] * 3, [1.0] * 3), 2, SMALL, Reasons(), residual=True)
    assert plan.network["_target_"].endswith("DynUNet") and plan.network["res_block"] is True
    network = ConfigParser({"n": plan.network}).get_parsed_content("n")
    assert network(torch.zeros(2, 1, 16, 16, 16)).shape[1:3] == (3, 2), "supervised heads, outputs"
    with pytest.raises(InputError, match="--residual is for DynUNet, and UNet"):
        plan_dense(fit([64] * 3, [1.0] * 3), 2, SMALL, Reasons(), residual=True, name="UNet")


def test_budgets():
    reasons = Reasons()
    assert plan_budget("quick", reasons).steps_per_epoch * plan_budget("quick", reasons).epochs == 200
    assert "the same for every arm" in reasons.why("steps")
    found = plan_budget(1234, Reasons())
    assert 1234 <= found.epochs * found.steps_per_epoch < 1234 + found.steps_per_epoch
    for wrong in ("quik", "0", -3, "2.5"):
        with pytest.raises(InputError, match="no budget"):
            plan_budget(wrong, Reasons())
    assert [selects_epoch(n) for n in (2, 7, 8)] == [False, False, True]
