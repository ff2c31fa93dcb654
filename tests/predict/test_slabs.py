"""In slabs come the labels of MONAI's sliding window, inverse and argmax, on every way an image may have gone."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    Flipd,
    Invertd,
    LoadImaged,
    Orientationd,
    Rotated,
    Spacingd,
    SpatialPadd,
)
from scipy.ndimage import gaussian_filter

from monai_transfer.errors import InputError
from monai_transfer.predict.geometry import NotSeparable
from monai_transfer.predict.in_slabs import advise, put_in_slabs
from monai_transfer.predict.slabs import NoSingleOutput, SlabPlan, Windows, segment

pytestmark = pytest.mark.filterwarnings("ignore")
# axes swapped, one mirrored, anisotropic, off the origin
AFFINE = np.array([[-1.5, 0, 0, 30], [0, 0, 1.2, -20], [0, 2.5, 0, 5], [0, 0, 0, 1]])
RAS = Orientationd("image", "RAS", labels=None)
WAYS = {
    "as it is": [],
    "turned": [RAS, Flipd("image", 1)],
    "coarser": [RAS, Spacingd("image", (2.1, 2.3, 1.7), mode="bilinear")],
    "finer, cut, turned": [
        Spacingd("image", (1.1, 1.6, 2.2), mode="bilinear"),
        CropForegroundd("image", "image", select_fn=lambda x: x > 0.3),
        Orientationd("image", "PLI", labels=None),
    ],
    "padded": [RAS, SpatialPadd("image", (70, 60, 64))],
}


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    volume = 10 * gaussian_filter(np.random.default_rng(0).normal(size=(44, 35, 53)), 3)
    volume[:5], volume[:, :6] = 0, 0
    path = tmp_path_factory.mktemp("slabs") / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), AFFINE), path)
    return path


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return UNet(3, 1, 5, (8, 16, 32), (2, 2), norm="BATCH").eval()


def prepared(scan, steps):
    transform = Compose([LoadImaged("image"), EnsureChannelFirstd("image"), *steps])
    return transform, transform({"image": str(scan)})


def straight(transform, item, network, windows, softmax=False, nearest=False):
    """The way of a bundle's config."""
    with torch.no_grad():
        scores = sliding_window_inference(
            item["image"][None], windows.size, 2, network, windows.overlap[0], windows.mode
        )
    steps = [
        Invertd("pred", transform, "image", nearest_interp=nearest, to_tensor=True),
        AsDiscreted("pred", argmax=True),
    ]
    if softmax:
        steps.insert(0, Activationsd("pred", softmax=True))
    return Compose(steps)({**item, "pred": scores[0]})["pred"].as_tensor()


@pytest.mark.parametrize("size", [(32, 32, 32), (24, 64, 40)])
@pytest.mark.parametrize("way", WAYS)
def test_the_same_labels(scan, network, way, size):
    transform, item = prepared(scan, WAYS[way])
    windows = Windows(size, 3, (0.25,) * 3, "gaussian")
    expected = straight(transform, item, network, windows)
    assert len(expected.unique()) > 2
    with torch.inference_mode():
        got = segment(item["image"], network, windows, classes=5)
        half = segment(item["image"], network, windows, classes=5, limit=1)
    assert got.dtype == torch.uint8 and got.shape == expected.shape
    assert (got != expected).float().mean() < 1e-4  # ties of rounding
    assert (half != expected).float().mean() < 2e-3  # sums in half precision, where memory asks for them


@pytest.mark.parametrize(("softmax", "nearest"), [(True, False), (False, True)])
def test_probabilities_and_the_nearest_voxel(scan, network, softmax, nearest):
    transform, item = prepared(scan, WAYS["coarser"])
    windows = Windows((32, 32, 32), 4, (0.5,) * 3, "constant")
    expected = straight(transform, item, network, windows, softmax, nearest)
    with torch.inference_mode():
        got = segment(item["image"], network, windows, classes=5, softmax=softmax, nearest=nearest)
    assert (got != expected).float().mean() < 1e-4


def test_what_does_not_go_in_slabs_is_said(scan, network):
    windows = Windows((32, 32, 32))
    _, turned = prepared(scan, [Rotated("image", 0.3)])
    with pytest.raises(NotSeparable, match="Rotate"):
        segment(turned["image"], network, windows, classes=5)
    _, bent = prepared(scan, [Spacingd("image", (2, 2, 2), mode=3)])
    with pytest.raises(NotSeparable, match="interpolates by 3"):
        segment(bent["image"], network, windows, classes=5)
    _, plain = prepared(scan, [])
    for other in (lambda x: (network(x),), lambda x: network(x)[:, :3], lambda x: network(x)[..., :16]):
        with pytest.raises(NoSingleOutput), torch.inference_mode():
            segment(plain["image"], other, windows, classes=5)
    with pytest.raises(InputError, match="NaN"), torch.inference_mode():
        segment(plain["image"], lambda x: network(x) / 0 * 0, windows, classes=5)


def test_the_plan_keeps_to_its_limit_and_says_what_does_not_fit():
    body, windows = (512, 512, 600), Windows((96, 96, 96), 4)
    free = SlabPlan.make(body, body, 104, windows)
    assert free.axis == 2 and free.batch == 4 and free.dtype == torch.float32 and free.whole > 200 * 2**30
    small = SlabPlan.make(body, body, 104, windows, limit=10 * 2**30)
    assert small.total <= 10 * 2**30 < free.total and small.dtype == torch.float16
    with pytest.raises(InputError, match="104 classes of 512 x 512 x 600 need .* --max-memory allows 1.0 GiB"):
        advise(SlabPlan.make(body, body, 104, windows, limit=2**30), 104, body, 2**30, asked=True)


def test_large_windows_go_in_pairs_where_their_answers_would_take_more_than_the_sums():
    shape = (320, 320, 256)
    small, large = (SlabPlan.make(shape, shape, 30, Windows((edge,) * 3, batch=4)) for edge in (64, 128))
    assert small.batch == 4 and large.batch == 2 and large.windows <= large.slab
    assert SlabPlan.make((128,) * 3, (128,) * 3, 30, Windows((128,) * 3, batch=4)).batch == 2  # one is slow


class Parser(dict):
    """As much of MONAI's parser as is asked for."""

    @property
    def config(self):
        return self


INVERT = {"_target_": "monai.transforms.Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
ARGMAX = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
SAVE = {"_target_": "SaveImaged", "keys": "pred"}


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ([{**INVERT, "nearest_interp": False}, ARGMAX, SAVE], (False, False)),
        ([SOFTMAX, {**INVERT, "nearest_interp": False, "to_tensor": True}, ARGMAX, SAVE], (True, False)),
        ([{**INVERT, "nearest_interp": False}, SOFTMAX, ARGMAX, SAVE], (False, False)),
        ([ARGMAX, INVERT, SAVE], (False, True)),
        ([ARGMAX, {**INVERT, "nearest_interp": False}, SAVE], None),  # would average class numbers
        ([{**INVERT, "transform": "@other"}, ARGMAX, SAVE], None),
        ([{**INVERT, "nearest_interp": False}, {**ARGMAX, "argmax": False, "threshold": 0.5}, SAVE], None),
        ([{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}, INVERT, ARGMAX, SAVE], None),
        ([SAVE], None),
    ],
)
def test_which_configs_go_in_slabs(steps, kept):
    window = {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 32]}
    parser = Parser(inferer=window, postprocessing={"_target_": "Compose", "transforms": steps})
    assert put_in_slabs(parser, 5, None) is (kept is not None)
    if kept is not None:
        assert parser["inferer"]["flips"] is None
        mirrored = {"_target_": "monai_transfer.testtime.flips.FlipInferer", "inferer": window, "axes": [0, 2]}
        other = Parser(inferer=mirrored, postprocessing={"_target_": "Compose", "transforms": steps})
        assert put_in_slabs(other, 5, None)
        assert other["inferer"] == {**parser["inferer"], "flips": {"axes": [0, 2]}}
        assert (parser["inferer"]["softmax"], parser["inferer"]["nearest"]) == kept
        names = [step["_target_"] for step in parser["postprocessing"]["transforms"]]
        assert names == ["monai_transfer.predict.in_slabs.AsRead", "SaveImaged"]
    else:
        assert parser["inferer"] is window
