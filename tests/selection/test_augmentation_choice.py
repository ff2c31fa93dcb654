"""The rule for a source's augmentation: what it looks at, and what it says on drawn and on real pairs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

from monai_transfer.data.phantom import embedded_set
from monai_transfer.manifest import Manifest
from monai_transfer.selection.augmentation_choice import (
    PRICES,
    choose_augmentation,
    is_quantitative,
    source_augmentation,
)
from monai_transfer.selection.gap import domain_gap


class Gap:
    name_a, name_b = "A", "B"

    def __init__(self, value, low):
        self.row = SimpleNamespace(value=value, low=low)

    def __getitem__(self, name):
        assert name == "intensity distribution"
        return self.row


@pytest.mark.parametrize(
    ("task", "modality", "found", "preset", "words"),
    [
        ("segmentation", "MR", Gap(40.0, 33.0), "randomised_all", "40 % of the range apart"),
        ("segmentation", "MR", Gap(40.0, 3.0), "standard", "not more than 15 % beyond chance"),
        ("segmentation", "MR", Gap(-0.2, -4.0), "standard", "lie 0 %"),
        ("segmentation", "MR", Gap(-0.2, -4.0), "standard", ".500 abroad against .517"),
        ("classification", "", Gap(40.0, 33.0), "randomised_all", ".875 against .910 at home"),
        ("regression", "MR", Gap(40.0, 33.0), "standard", "a regression"),
        ("segmentation", "CT", Gap(40.0, 33.0), "standard", "measured numbers"),
        ("segmentation", "MR", None, "standard", "no target is known"),
        ("segmentation", "MR", Gap(None, None), "standard", "not known"),
    ],
)
def test_the_rule(task, modality, found, preset, words):
    choice = choose_augmentation(task, modality, found)
    assert choice.preset == preset and words in choice.reason


def test_sites_of_different_modalities():
    """CT and MR: grey values lie close together and mean different tissue."""
    data = Manifest("both", "segmentation", {"0": "background", "1": "tumour"}, modality="CT; MR")
    found = source_augmentation(data, "ct", "mr")
    assert found.preset == "randomised_all" and "(CT; MR) differ" in found.reason and ".443 abroad" in found.reason
    assert source_augmentation(data, "ct", None).preset == "standard", "no target, nothing to carry over to"
    assert source_augmentation(data, "ct", "ct").preset == "standard"
    assert source_augmentation(replace(data, task="regression"), "ct", "mr").preset == "standard"
    channels = replace(data, channel_names={"0": "CT", "1": "MR"})
    assert source_augmentation(channels, "a", "b").preset == "standard", "one site may well have two modalities"


def test_another_plain_preset():
    assert choose_augmentation("segmentation", "MR", default="light").preset == "light"


@pytest.mark.parametrize("modality", ["CT", "abdominal CT", "PET", "ADC", {"0": "PET", "1": "CT"}])
def test_scales_that_mean_something(modality):
    assert is_quantitative(modality)
    assert not any(map(is_quantitative, ["MR", "T1", "microscopy", "OCT", "", None]))


def test_on_drawn_scanners(tmp_path):
    """Two simulated scanners of the embedded set, and the same images with their contrast turned round."""
    manifest = Manifest.load(f"{embedded_set('segmentation')}/manifest.json")
    one, two = manifest.sites[:2]
    near = domain_gap(manifest, manifest, site_a=one, site_b=two, max_patients=8)
    assert choose_augmentation("segmentation", "MR", near).preset == "standard"
    data = manifest.cases("training", site=one)[:8]
    items = []
    for n, case in enumerate(data):
        image = nibabel.load(case.images[0])
        values = np.asanyarray(image.dataobj).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values.max() - values, image.affine), tmp_path / f"{n}.nii.gz")
        items.append({"image": f"{n}.nii.gz", "label": None, "case": f"c{n}", "patient": f"p{n}", "site": "turned"})
    (tmp_path / "manifest.json").write_text(
        json.dumps(
            {"name": "turned", "task": "segmentation", "labels": {"0": "background", "1": "x"}, "training": items}
        )
    )
    far = domain_gap(manifest, tmp_path / "manifest.json", site_a=one, max_patients=8)
    assert choose_augmentation("segmentation", "MR", far).preset == "randomised_all"


def test_the_prices_that_are_printed_are_those_of_the_page():
    page = (Path(__file__).parents[2] / "docs" / "augmentation.md").read_text(encoding="utf-8")
    for text in PRICES.values():
        numbers = re.findall(r"(?<!\d)\.\d{3}", text)
        assert len(numbers) >= 4 and all(number in page for number in numbers), text
