"""A metric of one's own, entered in the table, comes out right in recorder, summary, comparison, figures and words."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator

from monai_transfer import compare_runs
from monai_transfer.evaluation.recorder import CaseRecorder
from monai_transfer.metrics import MASK_METRICS, Metric
from monai_transfer.report.html import render
from monai_transfer.report.run import Run


def centre(mask, spacing):
    return np.array([axis.mean() for axis in np.nonzero(mask)]) * spacing


OFFSET = Metric(
    "offset",
    "centre offset",
    "How far the two centres are apart.",
    better=-1,
    unit="mm",
    low=0.0,
    averaged=True,
    of_masks=lambda pair: float(np.linalg.norm(centre(pair.predicted, pair.spacing) - centre(pair.true, pair.spacing))),
)


class Roll(torch.nn.Module):
    """Predicts the picture moved by so many voxels."""

    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def forward(self, x):
        return torch.roll(x, self.by, dims=2)


def runs(folder, affine):
    rng = np.random.default_rng(0)
    for arm, luck in (("scratch", 5), ("source", 4), ("fine_tuned", 0)):
        for seed in range(5):
            items = []
            for i in range(6):
                truth = torch.zeros(1, 24, 24)
                truth[:, 4 + i : 9 + i, 6:12] = 1
                image, label = (MetaTensor(truth.clone(), affine=affine) for _ in range(2))
                items.append({"image": image, "label": label, "case": f"c{i}", "patient": f"p{i}"})
            out = folder / f"{arm}-{seed}"
            recorder = CaseRecorder(out, "segmentation", {0: "background", 1: "cyst"}, figures=2)
            by = Roll(luck + int(rng.integers(0, 2)))
            loader = DataLoader(Dataset(items), batch_size=2)
            SupervisedEvaluator(torch.device("cpu"), loader, by, val_handlers=[recorder]).run()
            record = {"status": "finished", "workflow": "train", "arm": arm, "seed": seed, "task": "segmentation"}
            (out / "run.json").write_text(json.dumps(record))
            yield out


@pytest.fixture
def offset(monkeypatch):
    monkeypatch.setitem(MASK_METRICS, "offset", OFFSET)


def test_a_toy_metric_is_right_everywhere(offset, tmp_path):
    folders = list(runs(tmp_path, torch.diag(torch.tensor([2.0, 2.0, 1.0]))))
    with (folders[0] / "cases.csv").open() as stream:
        row = next(csv.DictReader(stream))
    assert float(row["offset_cyst"]) in (10.0, 12.0), "moved by 5 or 6 voxels of 2 mm"
    assert "offset_cyst" in json.loads((folders[0] / "summary.json").read_text())["metrics"]
    report = compare_runs(folders, metric="offset")
    assert report.higher_is_better is False and report.to_dict()["unit"] == "mm"
    judged = report.judgements["fine_tuned"]
    assert judged.word == "helped" and judged.differences["source"].mean == pytest.approx(8, abs=2)
    assert report.arms["scratch"].high > 10, "no interval is cut to one"
    assert report.arms["fine_tuned"].low >= 0
    assert "centre offset (mm)" in judged.sentence
    title = report.table().title
    assert "centre offset (mm), smaller is better" in title
    page = render(report)
    assert "How far the two centres are apart." in page and "worse      difference in" not in title
    assert "offset" in compare_runs(folders).arms["source"].metrics, "also where it is not what is judged by"


def test_a_predicted_volume_is_compared_without_a_claim(tmp_path):
    folders = list(runs(tmp_path, torch.diag(torch.tensor([2.0, 2.0, 1.0]))))
    report = compare_runs(folders, metric="area_pred_mm2_cyst")
    assert report.arms["source"].mean == pytest.approx(120)
    assert report.arms["source"].low <= 120 <= report.arms["source"].high, "not cut to one"
    assert report.higher_is_better is None
    assert "better" not in report.table().title and "area (mm²), cyst" in report.table().title
    judged = report.judgements["fine_tuned"]
    assert judged.word == "no verdict" and "neither more nor less" in judged.sentence
    page = render(report)
    assert "improvement" not in page and "Difference to" in page


def test_nothing_beats_another_by_a_quantity_of_which_neither_more_nor_less_is_better(tmp_path):
    """Five seeds, in which the untouched source always predicts more than the network from scratch."""
    loaded = []
    for arm, area in (("scratch", 100.0), ("source", 130.0), ("fine_tuned", 110.0)):
        for seed in range(5):
            record = {"task": "segmentation", "arm": arm, "seed": seed, "labels": {"0": "background", "1": "cyst"}}
            cases = [
                {"case": f"c{n}", "patient": f"p{n}", "site": "x", "volume_pred_ml": area + n + 0.1 * seed * (n % 2)}
                for n in range(8)
            ]
            loaded.append(Run(tmp_path / f"{arm}-{seed}", record, cases))
    report = compare_runs(loaded, metric="volume_pred_ml")
    assert report.baseline_difference.low > 0
    assert "neither more nor less" in report.conclusion and "beats" not in report.conclusion


def test_pictures_are_in_pixels_everywhere(tmp_path):
    folders = list(runs(tmp_path, torch.eye(3)))
    assert json.loads((folders[0] / "summary.json").read_text())["unit_of_length"] == "px"
    report = compare_runs(folders, metric="hd95")
    assert "HD95 (px), smaller is better" in report.table().title and report.to_dict()["unit"] == "px"
    page = render(report)
    assert "(mm" not in page and "HD95 (px)" in page
    with (folders[0] / "cases.csv").open() as stream:
        assert not [name for name in next(csv.reader(stream)) if "mm" in name]
