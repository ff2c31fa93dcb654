"""The test score of a finished run on one scale for all tasks, for scripts that compare runs of several sets."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from monai_transfer.metrics.base import case_number
from monai_transfer.report.run import Run


def score_of(folder: Path) -> tuple[float, Run]:
    """The test mean of the primary metric, larger better; errors over the spread of the truth, so that 1 is perfect."""
    run = Run.load(folder)
    metric = run.metric(run.kind.primary_metric)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    mean = summary["metrics"][run.kind.primary_metric]["mean"]
    value = math.nan if mean is None else float(mean)
    if metric.better < 0:
        truth = np.array([case_number(row["label"]) for row in run.cases])
        value = 1.0 - value / float(np.abs(truth - truth.mean()).mean())
    return value, run
