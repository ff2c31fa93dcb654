"""Run folders as a study leaves them, with drawn results instead of trained networks."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from monai_transfer.evaluation.overlay import draw_case, draw_segmentation
from monai_transfer.evaluation.recorder import write_cases
from monai_transfer.metrics import classification_case, localization_case, regression_case, segmentation_case

LABELS = {"0": "background", "1": "tumour"}
WORKFLOW = {"source": "evaluate", "adapted": "adapt"}


class Study:
    """Writes run folders. ``effects``: arm -> mean Dice (or separation, or negative error) of that arm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(
        self,
        effects: Mapping[str, float],
        task: str = "segmentation",
        seeds: int = 5,
        patients: int = 12,
        figures: bool = False,
        sites: int = 1,
        source_once: bool = True,
        luck: float = 0.01,
        seed: int = 0,
        **record: object,
    ) -> list[Path]:
        rng = np.random.default_rng(seed)
        difficulty = rng.normal(0, 0.05, patients)
        folders = []
        for arm, mean in effects.items():
            taste = rng.normal(0, 0.015, patients)  # each arm finds other patients hard
            for s in range(1 if arm == "source" and source_once else seeds):
                run = 0.0 if arm == "source" else rng.normal(0, luck)
                level = np.clip(mean + run + difficulty + taste + rng.normal(0, 0.01, patients), 0.02, 0.99)
                folder = self.folder / f"{arm}-{s}"
                rows = [self._case(folder, task, i, float(v), figures and s == 0, sites) for i, v in enumerate(level)]
                self._folder(folder, arm, s, task, rows, rng, mean, record)
                folders.append(folder)
        return folders

    @staticmethod
    def _case(folder: Path, task: str, i: int, level: float, draw: bool, sites: int) -> dict:
        row = {"case": f"case-{i:03d}", "patient": f"p{i:03d}", "site": f"site {'ABC'[i % sites]}"}
        rng = np.random.default_rng(i)
        picture = folder / "figures" / f"{row['case']}.png"
        if task == "segmentation":
            if not draw:
                near = {"surface_dice": level, "hd95": 20 * (1 - level)}
                return row | {"dice": level, **near, "dice_tumour": level, "false_positive_tumour": 0}
            image, truth = _scan(rng)
            shift = round((1 - level) * 16)
            predicted = np.roll(truth, (shift, -shift // 2, 0), (0, 1, 2))
            draw_segmentation(picture, image, truth, predicted, np.diag([-1.0, -1.0, 3.0, 1.0]))
            return row | segmentation_case(predicted, truth, LABELS, (1, 1, 3)) | {"dice": level}
        if task == "classification":
            label = i % 2
            score = 1 / (1 + np.exp(-(3 * level * (2 * label - 1) + np.random.default_rng(i + 99).normal())))
            row |= classification_case([1 - score, score], label, ["normal", "lesion"])
            if draw:
                image, _ = _scan(rng)
                text = f"truth: {row['label']}   predicted: {row['prediction']} ({max(score, 1 - score):.2f})"
                draw_case(picture, image[:, :, 8], np.eye(3), text)
            return row
        if task == "localization":
            p, truth = np.zeros((2, 24, 24)), np.zeros((24, 24))
            truth[4:10, 4:10] = truth[14:20, 12:18] = i % 4 != 0  # one patient in four is healthy
            for sure, place in ((0.9, np.s_[4:10, 5:10]), (0.7, np.s_[14:20, 12:17])):
                p[1][place] = sure * (truth[place] if rng.random() < level else 0)
            p[1][20:23, 2:5] = 0.8 * (rng.random() > level)
            if draw:
                draw_segmentation(picture, truth, truth, p[1] > 0.5, np.eye(3))
            return row | localization_case(p, truth, (3.0, 3.0))[0]
        return row | regression_case(10 + i + 5 * (1 - level), 10 + i)

    @staticmethod
    def _folder(folder: Path, arm: str, seed: int, task: str, rows: list, rng, mean: float, record: Mapping) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_cases(folder / "cases.csv", rows)
        trained = arm != "source"
        content = {
            "format": 1,
            "status": "finished",
            "workflow": WORKFLOW.get(arm, "train"),
            "arm": arm,
            "seed": seed,
            "task": task,
            "spatial_dims": 3 if task == "segmentation" else 2,
            "labels": LABELS,
            "source_site": "GE",
            "target_site": "Philips",
            "n_labelled": 3,
            "labelled_train": 3 if arm not in ("source", "adapted") else 0,
            "steps": 300 if trained else 0,
            "bundle": "tumour_segmentation",
            "pretrained": None if arm == "scratch" else "model.pt",
            "pretrained_sha256": None if arm == "scratch" else "ab" * 32,
            "manifest_sha256": "cd" * 32,
            "config_sha256": f"{seed:02d}" * 32,
            "versions": {"monai-transfer": "0.1.0", "monai": "1.6.1", "torch": "2.13.0"},
            "started": "2026-01-01T10:00:00+00:00",
            **record,
        }
        (folder / "run.json").write_text(json.dumps(content))
        if trained:
            with (folder / "metrics.csv").open("w", newline="") as stream:
                names = ["epoch", "split", "lr", "loss", "val_mean_dice", "adapt_loss", "discriminator_accuracy"]
                writer = csv.DictWriter(stream, names, restval="")
                writer.writeheader()
                for epoch in range(1, 21):
                    train = {"epoch": epoch, "split": "training", "lr": 1e-3}
                    train["loss"] = float(np.exp(-epoch / 6) + 1 - mean + 0.02 * rng.normal())
                    if arm == "adapted":
                        train |= {"adapt_loss": 0.7 + 0.01 * rng.normal(), "discriminator_accuracy": 0.5 + 0.4 / epoch}
                    writer.writerow(train)
                    if epoch % 2 == 0:
                        value = mean * (1 - np.exp(-epoch / 5)) + 0.01 * rng.normal()
                        writer.writerow({"epoch": epoch, "split": "validation", "val_mean_dice": value})
        if trained and arm != "scratch":
            names = [f"encoder.{i}.conv.weight" for i in range(24)]
            weights = {"loaded": names, "adapted": ["head.weight"], "skipped": [], "missing": ["head.bias"]}
            weights |= {"unused": ["aux.weight"], "notes": {"head.weight": "class tumour by name"}, "coverage": 0.981}
            weights |= {"source": "/home/someone/weights/model.pt", "dialect": "plain", "licence": "CC-BY-4.0"}
            (folder / "weights.json").write_text(json.dumps(weights))


def _scan(rng) -> tuple[np.ndarray, np.ndarray]:
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (64, 72, 18)], indexing="ij"))
    body = (grid**2).sum(0) < 0.8
    centre = rng.uniform(-0.3, 0.3, 3)[:, None, None, None]
    truth = (((grid - centre) / np.array([0.35, 0.28, 0.45])[:, None, None, None]) ** 2).sum(0) < 1
    image = 0.5 * body + 0.3 * truth + 0.15 * np.sin(6 * grid[0]) * body + rng.normal(0, 0.04, body.shape)
    return image.astype(np.float32), truth.astype(np.int64)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "study")


@pytest.fixture(scope="module")
def shared_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("shared") / "study")
