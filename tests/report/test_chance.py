"""Where every interval holds chance, no difference between arms says anything, and the report says so."""

from __future__ import annotations

import json

import numpy as np
import pytest

from monai_transfer import compare_runs
from monai_transfer.evaluation.recorder import write_cases
from monai_transfer.metrics import classification_case
from monai_transfer.metrics.findings import findings_case
from monai_transfer.tasks import get_task


def runs(folder, knows):
    for arm in ("scratch", "source", "fine_tuned"):
        for seed in range(5):
            rng = np.random.default_rng([seed, len(arm)])
            rows = []
            for i in range(24):
                p = float(np.clip(0.5 + knows * (0.4 if i % 2 else -0.4) + 0.1 * rng.normal(), 0.01, 0.99))
                rows.append(
                    {"case": f"c{i}", "patient": f"p{i}", **classification_case([1 - p, p], i % 2, ["no", "yes"])}
                )
            out = folder / f"{arm}-{seed}"
            out.mkdir(parents=True)
            write_cases(out / "cases.csv", rows)
            record = {"status": "finished", "workflow": "train", "arm": arm, "seed": seed, "task": "classification"}
            (out / "run.json").write_text(json.dumps(record))
            yield out


def test_all_arms_at_chance_is_said(tmp_path):
    guessing = compare_runs(list(runs(tmp_path / "a", 0.0)))
    assert guessing.conclusion.startswith("All arms are at chance: every 95 % interval of AUC holds 0.500")
    assert "at chance" not in compare_runs(list(runs(tmp_path / "b", 1.0))).conclusion


def test_chance_levels_that_depend_on_the_cases():
    rows = [classification_case([0.5, 0.3, 0.2], n, ["a", "b", "c"]) for n in (0, 0, 0, 1, 2)]
    table = get_task("classification").metrics
    assert table["balanced_accuracy"].guessing(rows) == pytest.approx(1 / 3)
    assert table["accuracy"].guessing(rows) == pytest.approx(0.6), "the commonest class for all"
    assert table["log_loss"].guessing(rows) == pytest.approx(-(0.6 * np.log(0.6) + 0.4 * np.log(0.2)))
    assert table["auc"].guessing(rows) == 0.5 and table["f1"].guessing(rows) is None
    names = ["oedema", "mass"]
    found = [findings_case([0.5, 0.5], truth, names) for truth in ([1, 0], [0, 0], [0, -1], [0, 0])]
    ap = get_task("multilabel").metrics["ap"]
    assert ap.guessing(found) == 0.25 and ap.of_part("oedema").guessing(found) == 0.25
    assert ap.of_part("mass").guessing(found) is None, "no case has it"
    values = [{"label": float(v), "prediction": 0.0} for v in (1, 2, 3, 10)]
    numbers = get_task("regression").metrics
    assert numbers["mae"].guessing(values) == 2.5 and numbers["rmse"].guessing(values) == pytest.approx(12.5**0.5)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "accuracy"])
def test_arms_at_chance_by_another_metric(tmp_path, metric):
    guessing = compare_runs(list(runs(tmp_path / "a", 0.0)), metric=metric)
    assert guessing.conclusion.startswith("All arms are at chance") and "holds 0.500" in guessing.conclusion
    assert "at chance" not in compare_runs(list(runs(tmp_path / "b", 1.0)), metric=metric).conclusion
