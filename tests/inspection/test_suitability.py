"""A set against a model's training data: what will be resampled or rescaled, and what cannot work."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from monai_transfer.errors import InputError
from monai_transfer.inspection import compare_with_source, describe_data

BUNDLE = Path(__file__).parents[2] / "bundles" / "head_mr_segmentation"


@pytest.fixture
def bundle(tmp_path, data):
    """A bundle folder whose metadata describe the very set."""

    def write(inference: dict | None = None, image: dict | None = None, labels=("background", "tumour"), **transfer):
        description = describe_data(data.manifest())
        metadata = {
            "network_data_format": {
                "inputs": {
                    "image": {
                        "modality": "MR",
                        "num_channels": 1,
                        "spatial_shape": [16, 16, 8],
                        "channel_def": {"0": "T1"},
                    }
                    | (image or {})
                },
                "outputs": {"pred": {"num_channels": 2, "channel_def": {str(n): v for n, v in enumerate(labels)}}},
            },
            "transfer": {
                "task": "segmentation",
                "spacing": description.spacing,
                "data_statistics": description.to_dict(),
            }
            | transfer,
        }
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "configs").mkdir(parents=True)
        (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
        if inference is not None:
            (folder / "configs" / "inference.json").write_text(json.dumps(inference))
        return folder

    return write


def codes(findings):
    return {(f.severity, f.code) for f in findings}


def test_description(data):
    description = describe_data(data.manifest())
    assert description.spacing == [1, 1, 3] and description.orientation == "RAS"
    assert description.shape == [24, 20, 12] and description.dims == 3 and description.n_images == 18
    assert description.labels == ["background", "tumour"] and description.channel_names == ["T1"]
    assert 95 < description.intensity["p50"] < 110
    assert description.field_of_view == [24, 20, 36]
    assert description.prevalence == {"tumour": 1.0} and 0 < description.size["tumour"] < 0.5
    assert description.n_patients == len(data.manifest().patients)
    stored = description.to_dict()
    assert json.loads(json.dumps(stored)) == stored and list(stored)[:3] == ["task", "modality", "dims"]
    assert list(stored)[-3:] == ["intensity", "prevalence", "size"]
    assert not any(case.case in json.dumps(stored) for case in data.manifest().cases("training"))


def test_a_set_suits_the_model_that_was_trained_on_it(data, bundle):
    assert compare_with_source(describe_data(data.manifest()), bundle()) == []


@pytest.mark.parametrize(
    ("options", "finding", "words"),
    [
        ({"task": "classification"}, ("error", "source-task"), "classification"),
        ({"image": {"spatial_shape": [64, 64]}}, ("error", "source-dims"), "2D"),
        ({"image": {"num_channels": 4}}, ("error", "source-channels"), "4 channels"),
        ({"image": {"modality": "CT"}, "data_statistics": {}}, ("warning", "source-modality"), "CT"),
        ({"spacing": [1, 1, 1.5]}, ("note", "source-spacing"), "resampled to 1 x 1 x 1.5 mm .factor 2"),
        ({"spacing": [1, 1, 1]}, ("warning", "source-spacing"), "factor 3"),
        ({"orientation": "LPS"}, ("note", "source-orientation"), "RAS and will be turned to LPS"),
        ({"image": {"spatial_shape": [96, 96, 96]}}, ("warning", "source-extent"), "24 x 20 x 36 mm"),
        ({"labels": ("background", "liver")}, ("error", "source-labels"), "liver"),
        ({"labels": ("tumour", "background")}, ("error", "source-label-order"), "numbered otherwise"),
        ({"labels": ("background", "tumour", "oedema")}, ("warning", "source-labels"), "oedema"),
        ({"data_statistics": {"intensity": {"p0.5": 0, "p99.5": 2000}}}, ("warning", "source-intensity"), "2000"),
        ({"data_statistics": {}}, ("note", "source-silent"), "not say its orientation, intensities, field"),
        (
            {"data_statistics": {"field_of_view": [24, 20, 90]}},
            ("warning", "source-field-of-view"),
            "24 x 20 x 36 mm, in",
        ),
        ({"data_statistics": {"prevalence": {"tumour": 0.2}}}, ("warning", "source-prevalence"), "100% of.* in 20%"),
    ],
)
def test_differences(data, bundle, options, finding, words):
    findings = compare_with_source(describe_data(data.manifest()), bundle(**options))
    assert codes(findings) >= {finding}, findings
    assert re.search(words, next(f.line() for f in findings if f.code == finding[1]))


def test_channel_order(data, bundle):
    description = replace(describe_data(data.manifest()), channels=2, channel_names=["T1", "FLAIR"])
    model = bundle(image={"num_channels": 2, "channel_def": {"0": "FLAIR", "1": "T1"}})
    assert ("error", "source-channel-order") in codes(compare_with_source(description, model))


def test_transforms_speak_where_the_metadata_are_silent(data, bundle):
    transforms = [
        {"_target_": "Orientationd", "keys": "image", "axcodes": "LPS"},
        {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0]},
        {"_target_": "ScaleIntensityRanged", "a_min": -175, "a_max": 250, "b_min": 0, "b_max": 1},
    ]
    config = {"preprocessing": {"_target_": "Compose", "transforms": transforms}}
    model = bundle(config, spacing=None, data_statistics={})
    findings = codes(compare_with_source(describe_data(data.manifest()), model))
    assert findings >= {("warning", "source-spacing"), ("note", "source-orientation"), ("note", "source-window")}
    transforms[2] |= {"a_min": 5000, "a_max": 9000}
    model = bundle(config, spacing=None, data_statistics={})
    assert ("error", "source-window") in codes(compare_with_source(describe_data(data.manifest()), model))


@pytest.mark.parametrize(
    ("quantiles", "severity"),
    [
        ((-1000, -1000, -990, -80, 45, 180, 900), "note"),  # an abdomen with the air around it and bone
        ((-1024, -1020, -1000, -850, -300, 60, 500), "note"),  # a chest: few of its voxels are soft tissue
        ((0, 0, 10, 944, 1069, 1204, 1924), "error"),  # HU with 1024 added
        ((-1000, -1000, -998, -995, -990, -985, -980), "error"),  # air alone
    ],
    ids=["abdomen", "chest", "offset", "air"],
)
def test_ct_and_a_window_of_soft_tissue(data, bundle, quantiles, severity):
    names = ("p0.5", "p5", "p25", "p50", "p75", "p95", "p99.5")
    described = describe_data(data.manifest())
    described = replace(described, intensity=described.intensity | dict(zip(names, map(float, quantiles), strict=True)))
    step = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1}
    model = bundle({"preprocessing": {"_target_": "Compose", "transforms": [step]}}, data_statistics={})
    found = [finding.severity for finding in compare_with_source(described, model) if finding.code == "source-window"]
    assert found == [severity]


def test_no_code_of_the_bundle_runs(data, bundle, tmp_path):
    mark = tmp_path / "ran"
    model = bundle({"imports": [f"$open({str(mark)!r}, 'w')"], "x": {"_target_": "os.mkdir", "path": str(mark)}})
    compare_with_source(describe_data(data.manifest()), model)
    assert not mark.exists()


def test_a_foreign_bundle_says_what_could_not_be_compared(data, bundle):
    """As the model zoo has them: ``network_data_format`` alone, no transforms that speak."""
    model = bundle(spacing=None, data_statistics=None, task=None)
    found = {finding.code: finding for finding in compare_with_source(describe_data(data.manifest()), model)}
    assert set(found) == {"source-silent"}
    for word in ("task", "voxel size", "orientation", "intensities", "field of view", "class frequencies"):
        assert word in found["source-silent"].fault
    assert "modality" not in found["source-silent"].fault  # this it does say


def test_numbers_to_predict_that_training_did_not_have(data, bundle):
    model = bundle(task="regression", data_statistics={"prevalence": {"mean": 50, "std": 5, "p5": 40, "p95": 60}})
    description = replace(describe_data(data.manifest()), task="regression", labels=[])
    young = replace(description, prevalence={"mean": 20, "std": 5, "p5": 10, "p95": 30})
    assert ("warning", "source-prevalence") in codes(compare_with_source(young, model))
    alike = replace(description, prevalence={"mean": 49, "std": 5, "p5": 41, "p95": 62})
    assert ("warning", "source-prevalence") not in codes(compare_with_source(alike, model))


def test_packaged_bundle_can_be_compared(data):
    findings = compare_with_source(describe_data(data.manifest()), BUNDLE)
    assert ("error", "source-labels") in codes(findings)


def test_not_a_bundle(tmp_path, data):
    with pytest.raises(InputError, match="no bundle"):
        compare_with_source({}, tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        compare_with_source({}, tmp_path)
