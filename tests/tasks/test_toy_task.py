"""A task of one's own, described once, trains, is evaluated and compared: nothing else knows of it.

Landmarks: the place of one bright spot in a picture, row and column. Its label is no class, no mask and no quantity.
"""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from monai.transforms import Compose

from monai_transfer import compare_runs
from monai_transfer.engine.metrics_log import MetricsLog
from monai_transfer.engine.training_metrics import TrainingMetrics
from monai_transfer.evaluation.recorder import CaseRecorder
from monai_transfer.metrics.base import Metric
from monai_transfer.metrics.training import TrainingScore
from monai_transfer.report.html import render
from monai_transfer.tasks import TASKS, Outputs, Task
from monai_transfer.tasks.cases import CaseResult
from monai_transfer.tasks.labels import NUMBER, LabelKind

POINT = LabelKind("point", False, False, False, NUMBER.fault, lambda label, names: label, NUMBER.strata)


def _distance(case):
    p, t = (torch.as_tensor(v).double().flatten() for v in (case.prediction, case.truth))
    return CaseResult(
        {"label": str(t.tolist()), "distance": float((p - t).norm())}, f"off by {float((p - t).norm()):.2f}"
    )


def _hits(rows, weights):
    hit = np.array([float(row["distance"]) < 1.0 for row in rows], dtype=float)
    return {"": weights @ hit / weights.sum(axis=1)}


LANDMARK = Task(
    name="landmark",
    description="the place of a spot",
    label=POINT,
    dense=False,
    activation=None,
    metrics={
        "distance": Metric("distance", "distance", "How far off.", better=-1, unit="mm", low=0.0),
        "hits": Metric("hits", "hits", "Share within a pixel.", better=1, low=0.0, high=1.0, of_set=_hits),
    },
    primary_metric="distance",
    example_metric="distance",
    case=_distance,
    known=lambda row: row["label"] != "",
    training_score=TrainingScore(
        "training_distance",
        lambda p, t: torch.stack([(p - t).norm(dim=1).sum(), torch.tensor(float(len(p)))]),
        lambda sums: float(sums[0] / sums[1]),
    ),
    key_metric="val_distance",
    key_metric_config=lambda outputs: {
        "_target_": "monai.handlers.MeanAbsoluteError",
        "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
    },
    loss=lambda outputs: {"_target_": "torch.nn.SmoothL1Loss"},
    validation=lambda outputs: [],
    scored=lambda outputs: [],
    predicted=lambda outputs: [],
    saved_as="table",
    output_type="array",
    output_format="array",
    trained_as="regression",
)


@pytest.fixture
def landmark(monkeypatch):
    monkeypatch.setitem(TASKS, "landmark", LANDMARK)
    return LANDMARK


class Centre(torch.nn.Module):
    """A learned map of weights, and its centre."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        w = (self.scale.exp() * x[:, 0]).flatten(1).softmax(1).reshape(x[:, 0].shape)
        place = torch.arange(x.shape[-1], dtype=x.dtype)
        return torch.stack([(w.sum(2) * place).sum(1), (w.sum(1) * place).sum(1)], dim=1)


def spots(n, seed):
    rng = np.random.default_rng(seed)
    items = []
    for i in range(n):
        at = rng.integers(2, 14, 2)
        image = torch.from_numpy(rng.normal(0, 0.3, (1, 16, 16))).float()
        image[0, at[0], at[1]] += 3.0
        items.append({"image": image, "label": torch.tensor(at).float(), "case": f"{seed}-{i}", "patient": f"p{i}"})
    return items


def run(task, folder, arm, seed, epochs):
    """A stock MONAI trainer and evaluators, wired by what the task says."""
    torch.manual_seed(seed)
    outputs = Outputs(["row", "column"])
    parts = {name: getattr(task, name)(outputs) for name in ("loss", "key_metric_config", "validation", "scored")}
    built = ConfigParser({"imports": ["$import monai"], **parts})
    loss, metric, validation, scored = (built.get_parsed_content(name) for name in parts)
    network, cpu = Centre(), torch.device("cpu")

    def evaluator(items, post, **more):
        loader = DataLoader(Dataset(items), batch_size=8)
        return SupervisedEvaluator(cpu, loader, network, postprocessing=Compose(post), **more)

    validator = evaluator(spots(8, 2), validation, key_val_metric={task.key_metric: metric})
    folder.mkdir(parents=True)
    trainer = SupervisedTrainer(
        cpu,
        epochs,
        DataLoader(Dataset(spots(24, 1)), batch_size=8, shuffle=True),
        network,
        torch.optim.Adam(network.parameters(), 0.1),
        loss,
        train_handlers=[
            TrainingMetrics(task.name),
            ValidationHandler(interval=1, validator=validator),
            MetricsLog(str(folder), validator=validator),
        ],
    )
    trainer.run()
    evaluator(spots(12, 3), scored, val_handlers=[CaseRecorder(folder, task.name)]).run()
    record = {"status": "finished", "workflow": "train", "arm": arm, "seed": seed, "task": task.name}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_a_landmark_task_trains_is_evaluated_and_compared(landmark, tmp_path):
    runs = [
        run(landmark, tmp_path / f"{arm}-{seed}", arm, seed, epochs)
        for arm, epochs in (("scratch", 1), ("fine_tuned", 12))
        for seed in range(5)
    ]
    with (runs[-1] / "metrics.csv").open() as stream:
        logged = [float(row["training_distance"]) for row in csv.DictReader(stream) if row["split"] == "training"]
    assert logged[-1] < 0.7 * logged[0], "it learns, and the log says so"
    summary = json.loads((runs[-1] / "summary.json").read_text())
    assert (summary["primary_metric"], summary["higher_is_better"]) == ("distance", False)
    assert 0 <= summary["metrics"]["hits"]["low"] <= summary["metrics"]["hits"]["high"] <= 1
    assert len(list((runs[-1] / "figures").glob("*.png"))) == 12
    report = compare_runs(runs)
    assert report.arms["fine_tuned"].mean < report.arms["scratch"].mean
    judged = report.judgements["fine_tuned"]
    assert judged.word == "helped" and judged.differences["scratch"].mean > 0
    assert "distance (px)" in judged.sentence and "How far off." in render(report)
    by_hits = compare_runs(runs, metric="hits")
    assert by_hits.judgements["fine_tuned"].differences["scratch"].mean > 0
