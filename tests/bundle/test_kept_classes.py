"""A source that knows the liver, data that mark the spleen alone: both are outputs, and the liver is kept."""

from __future__ import annotations

import csv
import json

import pytest
import yaml

from benchmarks.kept_classes import write_data
from monai_transfer import compare_runs
from monai_transfer.bundle.new import new_bundle
from monai_transfer.bundle.run import run_workflow

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


def test_from_a_liver_source_to_liver_and_spleen(tmp_path):
    manifests = write_data(tmp_path / "data", 0)
    budget = {"epochs": 10, "pretrain_epochs": 20, "steps_per_epoch": 10, "batch_size": 4, "val_interval": 1000}
    new_bundle(tmp_path / "liver", manifests["north"], size="small", **budget)
    home = run_workflow(tmp_path / "liver", "pretrain", {}, log=False)
    bundle = tmp_path / "both"
    spec = new_bundle(bundle, manifests["south"], source=home, **budget)
    assert spec.class_names == ["background", "spleen", "liver"]
    config = yaml.safe_load((bundle / "configs" / "train.yaml").read_text())
    assert config["regulariser"]["_target_"].endswith("Distillation") and config["regulariser"]["kept"] == [0, 2]
    source = run_workflow(bundle, "evaluate", {"arm": "source"}, log=False)
    tuned = run_workflow(bundle, "train", {"lr": 0.002}, log=False)
    again = run_workflow(
        bundle, "evaluate", {"ckpt": str(tuned / "models" / "model.pt"), "seed": 1, "arm": "again"}, log=False
    )
    scores = {}
    for run in (source, tuned, again):
        rows = list(csv.DictReader((run / "cases.csv").open()))
        assert all(row["dice_liver"] == "" for row in rows), "no case can tell"
        scores[run] = json.loads((run / "summary.json").read_text())["metrics"]["source_dice_liver"]["mean"]
    assert scores[source] == 1, "the source agrees with itself"
    assert scores[again] == pytest.approx(scores[tuned]) and 0.5 < scores[tuned] < 1
    report = compare_runs([source, tuned])
    assert report.judgements["fine_tuned"].lost == []
    assert "source_dice_liver" in report.arms["fine_tuned"].metrics
    dropped = new_bundle(tmp_path / "one", manifests["south"], source=home, keep_classes=False, **budget)
    assert dropped.class_names == ["background", "spleen"] and dropped.regulariser is None
