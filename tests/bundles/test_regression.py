"""Regression from end to end: the packaged 3D bundle, and one for 2D pictures; losses by config; millimetres kept."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from PIL import Image

from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import open_workflow, parse_overrides, run_workflow
from monai_transfer.manifest import Manifest
from monai_transfer.report.compare import compare_runs
from tests.tiny_sets import copied

pytestmark = pytest.mark.filterwarnings("ignore")
BUNDLES = Path(__file__).parents[2] / "bundles"
NAME = "head_mr_volume_regression"


@pytest.fixture
def bundle(tmp_path) -> Path:
    return copied(NAME, tmp_path)


@pytest.fixture(scope="session")
def small_set(embedded_set_of_two) -> str:
    return str(embedded_set_of_two("regression"))


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ([], "MSELoss"),
        (["--loss::_target_", "torch.nn.L1Loss"], "L1Loss"),
        (["--loss#_target_", "torch.nn.HuberLoss", "--loss#delta", "0.5"], "HuberLoss"),
    ],
)
def test_the_loss_is_a_config_line(bundle, small_set, words, kind):
    overrides = parse_overrides(["--dataset_dir", small_set, "--n_labelled", "2", *words])
    flow = open_workflow(bundle, "train", {**overrides, "max_epochs": 1, "steps_per_epoch": 1}, log=False)
    flow.initialize()
    loss = flow.parser.get_parsed_content("loss")
    assert type(loss).__name__ == kind
    assert getattr(loss, "delta", 0.5) == 0.5
    trainer = flow.parser.get_parsed_content("train#trainer")
    flow.run()
    output = trainer.state.output
    expected = loss(output["pred"].float(), output["label"].float())
    assert output["pred"].shape == output["label"].shape == (4, 1)
    assert output["loss"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_millimetre_stays_one_whatever_the_field_of_view(bundle):
    """The same ball in scans of unlike field of view and voxel size has the same volume on the training grid."""
    config = ConfigParser.load_config_file(str(bundle / "configs" / "inference.yaml"))
    parser = ConfigParser({key: config[key] for key in ("imports", "spacing", "patch", "preprocessing")})
    transforms = parser.get_parsed_content("preprocessing").transforms
    steps = [t for t in transforms if type(t).__name__ in ("Orientationd", "Spacingd", "ResizeWithPadOrCropd")]
    assert len(steps) == 3
    found = []
    for spacing, shape in (((4, 4, 4), (44, 48, 40)), ((3.5, 3.5, 5), (54, 50, 32)), ((2, 2, 2), (80, 80, 70))):
        grid = np.meshgrid(
            *[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij"
        )
        ball = (sum(g**2 for g in grid) < 40**2).astype(np.float32)
        data = {"image": MetaTensor(torch.from_numpy(ball)[None], affine=np.diag([*spacing, 1.0]))}
        for step in steps:
            data = step(data)
        assert data["image"].shape == (1, 48, 48, 40)
        assert data["image"].pixdim.tolist() == pytest.approx([4, 4, 4])
        found.append(float(data["image"].sum()) * 64)
    assert found == pytest.approx([4 / 3 * np.pi * 40**3] * 3, rel=0.02)


def test_workflows_and_the_report_say_that_lower_is_better(bundle, small_set, tmp_path):
    given = {"dataset_dir": small_set, "max_epochs": 1, "steps_per_epoch": 1, "val_interval": 1}
    runs = []
    for seed in range(2):
        for arm, pretrained in (("scratch", "none"), ("fine_tuned", str(bundle / "models" / "model.pt"))):
            own = {"arm": arm, "seed": seed, "pretrained": pretrained, "n_labelled": 2}
            runs.append(run_workflow(bundle, "train", {**given, **own, "output_dir": str(tmp_path / f"{arm}-{seed}")}))
    record = json.loads((runs[0] / "run.json").read_text())
    assert (record["primary_metric"], record["higher_is_better"]) == ("mae", False)
    rows = list(csv.DictReader((runs[0] / "cases.csv").open()))
    summary = json.loads((runs[0] / "summary.json").read_text())
    errors = [abs(float(row["prediction"]) - float(row["label"])) for row in rows]
    assert summary["metrics"]["mae"]["mean"] == pytest.approx(np.mean(errors), rel=1e-5)
    validation = [row for row in csv.DictReader((runs[0] / "metrics.csv").open()) if row["split"] == "validation"]
    assert float(validation[0]["val_mae"]) > 1, "in ml, not in standard deviations"
    compare_runs(runs, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "mean absolute error" in html.lower()


def _discs(folder: Path, seed: int = 0) -> Path:
    """2D pictures of one disc each; the label is its area in pixels. Site south is inverted."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    content: dict = {"name": "discs", "task": "regression", "channel_names": {"0": "grey"}}
    x, y = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    for site in ("north", "south"):
        for split, count in {"training": 24, "validation": 6, "test": 12}.items():
            for number in range(count):
                radius = rng.uniform(4, 12)
                disc = (x - rng.uniform(13, 19)) ** 2 + (y - rng.uniform(13, 19)) ** 2 < radius**2
                grey = 60 + 120 * disc + rng.normal(0, 5, disc.shape)
                case = f"{site}_{split}_{number}"
                picture = (255 - grey if site == "south" else grey).clip(0, 255).astype(np.uint8)
                Image.fromarray(picture).save(folder / "images" / f"{case}.png")
                item = {"image": f"images/{case}.png", "label": float(disc.sum()), "case": case, "patient": case}
                content.setdefault(split, []).append(item | {"site": site})
    Manifest.from_dict(content, folder).save(folder / "manifest.json")
    return folder / "manifest.json"


def test_two_dimensions_learn_the_area_of_a_disc(tmp_path):
    manifest = _discs(tmp_path / "discs")
    bundle = tmp_path / "disc_regression"
    spec = new_bundle(bundle, manifest, source_site="north", target_site="south")
    assert (spec.spatial_dims, spec.out_channels) == (2, 1)
    run = run_workflow(bundle, "pretrain", {"max_epochs": 12, "steps_per_epoch": 8}, log=False)
    labels = [float(row["label"]) for row in csv.DictReader((run / "cases.csv").open())]
    home = json.loads((run / "summary.json").read_text())["metrics"]["mae"]["mean"]
    assert home < 0.6 * np.mean(np.abs(np.asarray(labels) - np.mean(labels))), "better than always saying the mean"
    best = str(run / "models" / "model.pt")
    away = run_workflow(bundle, "evaluate", {"ckpt": best}, log=False)
    assert json.loads((away / "summary.json").read_text())["metrics"]["mae"]["mean"] > home, "the shift"
    shutil.copyfile(best, bundle / "models" / "model.pt")
    sample = next((tmp_path / "discs" / "images").glob("north_test_*.png"))
    out = run_workflow(bundle, "infer", {"dataset_dir": str(sample.parent), "pattern": sample.name}, log=False)
    ((_, value),) = csv.reader((out / "predictions.csv").open())
    cases = {row["case"]: float(row["prediction"]) for row in csv.DictReader((run / "cases.csv").open())}
    assert float(value) == pytest.approx(cases[sample.stem], rel=1e-3), "the number in the label's unit"
