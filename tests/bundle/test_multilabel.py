"""Several findings in a case, from the manifest through every workflow to predictions and a comparison."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import yaml
from PIL import Image

from monai_transfer import compare_runs
from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow
from monai_transfer.errors import InputError
from monai_transfer.predict.images import predict_images

pytestmark = pytest.mark.filterwarnings("ignore")
PLACES = {"mass": (4, 4), "effusion": (20, 20)}


def write_findings(folder, patients=24):
    """Two sites; a bright square in one corner is a mass, in the other an effusion; a third of the labels is open."""
    rng = np.random.default_rng(0)
    splits: dict[str, list] = {"training": [], "validation": [], "test": []}
    folder.mkdir()
    for site, gain in (("north", 1.0), ("south", 0.6)):
        for i in range(patients):
            there = {name: int(rng.random() < 0.5) for name in PLACES}
            image = rng.normal(60, 12, (32, 32)) * gain
            for name, (row, column) in PLACES.items():
                image[row : row + 8, column : column + 8] += 120 * gain * there[name]
            name = f"{site}{i:02d}"
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.png")
            label = {finding: None if rng.random() < 0.3 else value for finding, value in there.items()}
            split = "test" if i % 4 == 3 else "validation" if i % 4 == 2 else "training"
            item = {"image": f"{name}.png", "label": label, "case": name, "patient": name, "site": site}
            splits[split].append(item)
    content = {"name": "findings", "task": "classification", "labels": dict(enumerate(PLACES)), **splits}
    content["labels"] = {str(key): name for key, name in content["labels"].items()}
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder / "manifest.json"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    root = tmp_path_factory.mktemp("findings")
    manifest = write_findings(root / "data")
    options = {"epochs": 4, "pretrain_epochs": 5, "steps_per_epoch": 6, "batch_size": 8, "val_interval": 2}
    new_bundle(root / "chest", manifest, source_site="north", target_site="south", method="coral", **options)
    run_workflow(root / "chest", "pretrain", {}, log=False)
    return root / "chest"


def test_its_metadata_and_data_lists_are_those_of_findings(bundle):
    """Not those of a mask, and joint training's `n_replay` is read as for every task with labels."""
    told = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]["outputs"]["pred"]
    assert (told["type"], told["format"], told["num_channels"]) == ("probabilities", "classes", 2)
    assert yaml.safe_load((bundle / "configs" / "train.yaml").read_text())["lists"]["n_replay"] == "@n_replay"


def test_every_workflow_and_the_comparison(bundle, tmp_path):
    runs = [run_workflow(bundle, workflow, {}, log=False) for workflow in ("train", "adapt")]
    source = run_workflow(bundle, "evaluate", {"arm": "source"}, log=False)
    summary = json.loads((source / "summary.json").read_text())
    assert (summary["task"], summary["primary_metric"]) == ("multilabel", "auc")
    assert {"auc", "ap", "auc_mass", "auc_effusion", "ap_mass", "balanced_accuracy"} <= set(summary["metrics"])
    assert summary["metrics"]["auc"]["mean"] > 0.8, "bright squares are easily learned"
    with (source / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["label_mass"] for row in rows} == {"0.0", "1.0", ""}, "an open label stays open"
    report = compare_runs([*runs, source])
    assert report.task == "multilabel" and set(report.arms) == {"joint", "adapted", "source"}
    by_finding = compare_runs([*runs, source], metric="auc_mass")
    assert by_finding.measure.heading == "AUC, mass"
    with (runs[0] / "metrics.csv").open() as stream:
        logged = {name for row in csv.DictReader(stream) for name, value in row.items() if value}
    assert {"training_accuracy", "val_auc"} <= logged


def test_predictions_list_what_is_there(bundle, tmp_path):
    images = sorted((bundle.parent / "data").glob("south0*.png"))
    predict_images(bundle, images, tmp_path / "out", run=bundle / "runs/pretrain-0")
    with (tmp_path / "out" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        p = {name: float(row[f"p_{name}"]) for name in PLACES}
        assert row["prediction"] == ("|".join(name for name in PLACES if p[name] > 0.5) or "no finding")
    assert any(sum(float(row[f"p_{name}"]) for name in PLACES) > 1.2 for row in rows), "they do not exclude each other"


def test_a_method_for_exclusive_classes_is_refused(bundle, tmp_path):
    with pytest.raises(InputError, match="Mcc is not for multilabel, since .* exclude each other") as told:
        new_bundle(tmp_path / "b", bundle.parent / "data/manifest.json", source_site="north", method="mcc")
    assert "self_training" in told.value.hint and "mean_teacher" in told.value.hint


@pytest.mark.parametrize("method", ["methods.self_training.SelfTraining", "testtime.tent.Tent"])
def test_methods_that_take_each_finding_by_itself(bundle, tmp_path, method):
    manifest = bundle.parent / "data/manifest.json"
    budget = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 8}
    sites = {"source_site": "north", "target_site": "south"}
    new_bundle(
        tmp_path / "b", manifest, source=bundle / "runs/pretrain-0", method=method.split(".")[1], **sites, **budget
    )
    told = yaml.safe_load((tmp_path / "b/configs/adapt.yaml").read_text())
    (adapt,) = [h for h in [*told["+train::handlers"], told.get("adaptation", {})] if h.get("task")]
    assert adapt["task"] == "multilabel"
    run = run_workflow(tmp_path / "b", "adapt", {}, log=False)
    assert json.loads((run / "run.json").read_text())["method"] == f"monai_transfer.{method}"
    assert json.loads((run / "summary.json").read_text())["metrics"]["auc"]["mean"] > 0.6
