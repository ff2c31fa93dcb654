"""Missing channels: from a manifest's stand-in to zeros and a flag, dropout that leaves one, and a refusal."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, NormalizeIntensityd

from monai_transfer.data.missing import PresenceChannelsd, RandChannelDropoutd, ZeroMissingd, refuse_missing
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest


def three_channels(folder):
    items = []
    for i in range(2):
        for c in range(3):
            array = np.random.default_rng(10 * i + c).random((4, 4, 4)).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"{i}_{c}.nii.gz")
        images = [f"{i}_{c}.nii.gz" for c in range(3)]
        items.append({"image": images, "label": i, "case": f"c{i}", "patient": f"p{i}", "site": "s"})
    items[1] |= {"image": ["1_0.nii.gz", "1_0.nii.gz", "1_2.nii.gz"], "missing": [1]}
    labels = {"0": "well", "1": "ill"}
    return Manifest.from_dict({"name": "x", "task": "classification", "labels": labels, "training": items}, folder)


def test_from_a_manifest_to_a_batch(tmp_path):
    manifest = three_channels(tmp_path)
    assert Manifest.from_dict(manifest.to_dict(), tmp_path) == manifest
    steps = [LoadImaged("image"), EnsureChannelFirstd("image"), NormalizeIntensityd("image", channel_wise=True)]
    data = Dataset(manifest.datalist("training"), Compose([*steps, ZeroMissingd("image"), PresenceChannelsd("image")]))
    batch = next(iter(DataLoader(data, batch_size=2)))
    assert batch["image"].shape == (2, 6, 4, 4, 4)
    assert batch["present"].tolist() == [[True, True, True], [True, False, True]]
    assert not batch["image"][1, 1].any() and batch["image"][0, 1].std() > 0.5
    assert batch["image"][1, 3:, 0, 0, 0].tolist() == [1, 0, 1] and batch["image"][0, 3:].min() == 1


def test_dropout_is_even_repeats_and_leaves_one():
    drop = RandChannelDropoutd("image", prob=0.5).set_random_state(3)
    draws = torch.stack([drop({"image": torch.ones(3, 2)})["present"] for _ in range(400)])
    assert draws.any(1).all()
    assert (draws.float().mean(0) - 0.5).abs().max() < 0.12
    again = RandChannelDropoutd("image", prob=0.5).set_random_state(3)
    assert torch.equal(draws[:20], torch.stack([again({"image": torch.ones(3, 2)})["present"] for _ in range(20)]))
    item = {"image": torch.ones(3, 2), "present": torch.tensor([False, True, False])}
    assert drop(item)["present"].tolist() == [False, True, False]


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="channel 5 is declared missing, and the image has 2"):
        ZeroMissingd("image")({"image": torch.ones(2, 1), "missing": [5]})
    with pytest.raises(InputError, match="probability of dropout is 1"):
        RandChannelDropoutd("image", prob=1)
    items = [{"case": "a", "missing": []}, {"case": "b", "missing": [1]}]
    refuse_missing(items, trained_without=True)
    with pytest.raises(InputError, match="case 'b' lacks channel 1"):
        refuse_missing(items, trained_without=False)
