"""The report shows what auto decided, and what the test truth would have taken."""

from __future__ import annotations

import json

from monai_transfer import compare_runs
from monai_transfer.report.html import render

RECORD = {
    "taken": "joint",
    "rule": "fixed rule",
    "reason": "3 labelled patients cannot tell arms apart",
    "labelled_patients": 3,
    "scores": {"source": 0.61},
    "source_level": 0.58,
    "left_out": {"statistics": "no BatchNorm"},
}


def test_decision_and_regret(study):
    folders = study.write({"scratch": 0.4, "source": 0.5, "fine_tuned": 0.9, "auto": 0.7}, seeds=2)
    for folder in folders:
        if folder.name.startswith("auto"):
            path = folder / "run.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "auto": RECORD}))
    report = compare_runs(folders)
    assert report.decision is not None and report.decision.best == "fine_tuned"
    assert 0.1 < report.decision.regret < 0.3
    assert "Auto took joint training (2 of 2 runs), before any test case was seen" in report.decision.sentence
    assert report.to_dict()["decision"]["runs"][0]["patients"] == 3
    page = render(report)
    assert "What auto decided" in page and "58 % of the way from guessing to perfect" in page
    assert "re-estimated statistics (no BatchNorm)" in page
    assert compare_runs([f for f in folders if not f.name.startswith("auto")]).decision is None
    path = next(f for f in folders if f.name.startswith("auto") and f.name.endswith("1")) / "run.json"
    other = {**RECORD, "taken": "statistics", "reason": "it had the best mean"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto": other}))
    sentence = compare_runs(folders).decision.sentence
    assert "Auto took joint training (1 of 2 runs), re-estimated statistics (1 of 2 runs)" in sentence
    assert "before any test case was seen; with seed 0: 3 labelled patients cannot tell arms apart." in sentence
