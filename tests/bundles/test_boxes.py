"""The boxes of an inference config, which knows MONAI alone, are those of the package."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from bundles.packaged import packaged_specs
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.bundle.write import write_bundle
from monai_transfer.localization import boxes_from_probabilities
from monai_transfer.localization.world import box_records

SPEC = next(spec for spec in packaged_specs() if spec.task == "localization")


def parser_of(spec: BundleSpec, folder, **overrides) -> ConfigParser:
    bundle = write_bundle(spec, folder / spec.name)
    parser = ConfigParser(ConfigParser.load_config_file(str(bundle / "configs" / "inference.yaml")))
    for key, value in {"bundle_root": str(bundle), "dataset_dir": "/scans", **overrides}.items():
        parser[key] = value
    return parser


def prediction(dims: int, classes: int, name: str) -> MetaTensor:
    """Smooth random probabilities on an oblique grid with unlike steps."""
    rng = np.random.default_rng(dims)
    logits = np.stack([20 * gaussian_filter(rng.normal(size=(20, 24, 16)[:dims]), 1.5) for _ in range(classes)])
    logits[0] += 2.0  # lesions are islands
    turn, _ = np.linalg.qr(rng.normal(size=(dims, dims)))
    affine = np.eye(dims + 1)
    affine[:dims, :dims] = turn * np.array([1.5, 2.0, 3.5])[:dims]
    affine[:dims, -1] = rng.normal(size=dims) * 50
    p = torch.from_numpy(logits).float().softmax(0)
    return MetaTensor(p, affine=torch.from_numpy(affine), meta={"filename_or_obj": name})


@pytest.mark.parametrize(
    ("dims", "labels", "boxes"),
    [
        (3, {0: "background", 1: "lesion"}, {"min_size": 60.0, "threshold": 0.5}),
        (3, {0: "background", 1: "nodule", 2: "mass"}, {"threshold": 0.4, "score": "max", "connectivity": 1}),
        (2, {0: "background", 1: "lesion"}, {"score": "max", "connectivity": 2}),
    ],
)
def test_the_same_boxes_as_the_package(dims, labels, boxes, tmp_path):
    spec = dataclasses.replace(SPEC, spatial_dims=dims, labels=labels, boxes=boxes)
    pred = prediction(dims, len(labels), "/scans/a/b.nii.gz")
    parser = parser_of(spec, tmp_path, output_dir=str(tmp_path / "out"))
    found = parser.get_parsed_content("find_boxes")(pred)
    assert found["image"] == "a/b.nii.gz"
    spacing = np.linalg.norm(np.asarray(pred.affine)[:dims, :dims], axis=0).tolist()
    ours = box_records(
        boxes_from_probabilities(pred, spacing, **spec.boxes), pred.affine, {k: v for k, v in labels.items() if k}
    )
    assert len(ours) > 2
    assert found["boxes"] == ours
    parser.get_parsed_content("write_boxes")(found)
    assert json.loads((tmp_path / "out" / "a" / "b_boxes.json").read_text()) == found


@pytest.mark.parametrize(
    ("id", "value", "default"),
    [("score", "max", "mean"), ("threshold", 0.9, 0.1), ("min_size", 1e5, 300.0), ("connectivity", 1, 3)],
)
def test_every_option_acts_in_inference(id, value, default, tmp_path):
    """One id set alone, as `--boxes::score max` does, gives what the package's own function gives with it."""
    pred = prediction(3, 2, "/scans/b.nii")
    pred[1, 0, 0, 0], pred[1, 1, 1, 1] = 1.0, 1.0
    pred[1, 0, 0, 1:], pred[1, 0, 1:], pred[1, 1, :1], pred[1, 1, 1, :1], pred[1, 1, 1, 2:] = 0.0, 0.0, 0.0, 0.0, 0.0
    got = parser_of(SPEC, tmp_path, **{f"boxes::{id}": value}).get_parsed_content("find_boxes")(pred)["boxes"]
    before = parser_of(SPEC, tmp_path).get_parsed_content("find_boxes")(pred)["boxes"]
    spacing = np.linalg.norm(np.asarray(pred.affine)[:3, :3], axis=0).tolist()
    ours, plain = (
        box_records(boxes_from_probabilities(pred, spacing, **{**SPEC.boxes, id: v}), pred.affine, {1: "lesion"})
        for v in (value, default)
    )
    assert got == ours and before == plain and got != before
    train = ConfigParser(ConfigParser.load_config_file(str(tmp_path / SPEC.name / "configs" / "train.yaml")))
    train[f"boxes::{id}"] = value
    (recorder,) = train.get_parsed_content("test::handlers")
    assert recorder.options["boxes"][id] == value, "the test of a training run reads the same option"


def test_the_user_sets_threshold_and_size_by_config(tmp_path):
    pred = prediction(3, 2, "/scans/b.nii")
    strict = {"threshold": 0.99, "min_size": 0.0}
    few = parser_of(SPEC, tmp_path, boxes=strict).get_parsed_content("find_boxes")(pred)["boxes"]
    many = parser_of(SPEC, tmp_path).get_parsed_content("find_boxes")(pred)["boxes"]
    assert min(box["score"] for box in few) > 0.99 > min(box["score"] for box in many)
