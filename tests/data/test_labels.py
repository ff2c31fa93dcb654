"""The label transforms in a stock MONAI pipeline: from a file to targets in a batch, and a prediction back."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandFlipd, RandSpatialCropd

from monai_transfer.data.labels import DecodeLabelsd, EncodeLabelsd, LabelTargetsd
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest


def brats(folder, values=(0, 1, 2, 4), **changes):
    items = []
    for i in range(2):
        array = np.zeros((6, 6, 6), dtype=np.uint8)
        array[..., : len(values)] = values
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"m{i}.nii.gz")
        items.append(
            {"image": f"m{i}.nii.gz", "label": f"m{i}.nii.gz", "case": f"c{i}", "patient": f"p{i}", "site": f"s{i}"}
        )
    content = {
        "name": "x",
        "task": "segmentation",
        "labels": {"0": "background", "1": "necrosis", "2": "oedema", "4": "enhancing"},
        "training": items,
    }
    return Manifest.from_dict(content | changes, folder)


def loaded(manifest, *more):
    mapping = manifest.label_mapping
    steps = [LoadImaged("label"), EnsureChannelFirstd("label"), EncodeLabelsd("label", mapping), *more]
    return DataLoader(Dataset(manifest.datalist("training"), Compose(steps)), batch_size=2)


def test_regions_of_a_batch_and_the_prediction_in_the_files_own_values(tmp_path):
    manifest = brats(tmp_path, regions={"whole": [1, 2, 4], "core": [1, 4], "et": [4]})
    mapping = manifest.label_mapping
    steps = RandSpatialCropd("label", (4, 4, 6), random_size=False), RandFlipd("label", 1.0, 2)
    batch = next(iter(loaded(manifest, *steps, LabelTargetsd("label", mapping))))
    assert batch["label"].shape == (2, 3, 4, 4, 6)
    assert set(batch["label"].unique().tolist()) == {0, 1}
    pred = DecodeLabelsd("pred", mapping.to_dict())({"pred": batch["label"][0]})["pred"]
    assert pred.dtype == torch.uint8 and pred.shape == (1, 4, 4, 6)
    assert pred[0, 0, 0].tolist() == [0, 0, 4, 2, 1, 0]
    assert torch.equal(pred.affine, batch["label"][0].affine)


def test_sites_that_were_annotated_for_different_classes_share_a_batch(tmp_path):
    manifest = brats(tmp_path, annotated={"s0": ["necrosis"]})
    batch = next(iter(loaded(manifest, LabelTargetsd("label", manifest.label_mapping))))
    assert batch["annotated"].tolist() == [[False, True, False, False], [True] * 4]
    assert batch["label"][0, :, 0, 0, :2].tolist() == [[-1, 0], [0, 1], [-1, 0], [-1, 0]]
    assert batch["label"][1].min() == 0


def test_findings_become_a_vector(tmp_path):
    items = [
        {"image": "a.png", "label": {"oedema": 1, "mass": None}, "case": "a", "patient": "a", "site": "s"},
        {"image": "b.png", "label": {"mass": 0}, "case": "b", "patient": "b", "site": "s"},
    ]
    labels = {"0": "oedema", "1": "mass"}
    manifest = Manifest.from_dict({"name": "x", "task": "classification", "labels": labels, "training": items})
    dataset = Dataset(manifest.datalist("training"), EncodeLabelsd("label", manifest.label_mapping))
    assert next(iter(DataLoader(dataset, batch_size=2)))["label"].tolist() == [[1, -1], [-1, 0]]


def test_an_undeclared_value_names_its_file(tmp_path):
    manifest = brats(tmp_path, values=(0, 3))
    with pytest.raises(RuntimeError) as caught:
        next(iter(loaded(manifest)))
    cause = caught.value.__cause__
    assert isinstance(cause, InputError) and "m0.nii.gz: the label holds 3" in str(cause) and cause.hint


def test_class_numbers_and_one_hot_are_told_apart():
    labels = {"labels": {"0": "background", "128": "cup", "255": "disc"}}
    numbers = torch.tensor([[0, 2, 1]])
    one_hot = torch.eye(3)[numbers[0]].T
    for pred in (numbers, one_hot, numbers.float(), one_hot.numpy()):
        assert np.asarray(DecodeLabelsd("pred", labels)({"pred": pred})["pred"]).tolist() == [[0, 255, 128]]
