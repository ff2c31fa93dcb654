"""A class that the source knew and an arm has lost is said first, whatever the mean over the classes says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from monai_transfer import compare_runs
from monai_transfer.evaluation.recorder import write_cases
from monai_transfer.metrics import classification_case
from monai_transfer.report.command import compare
from monai_transfer.report.html import render


def write(folder, arm, seed, task, rows):
    out = folder / f"{arm}-{seed}"
    out.mkdir(parents=True)
    write_cases(out / "cases.csv", rows)
    record = {"status": "finished", "workflow": "train", "arm": arm, "seed": seed, "task": task}
    (out / "run.json").write_text(json.dumps(record))
    return out


def organs(folder, dice, told=True, predicted=None):
    """``dice``: arm -> (liver, spleen); ``predicted``: arm -> ml of liver; ``told``: the test cases mark the liver."""
    runs = []
    for arm, (liver, spleen) in dice.items():
        for seed in range(5):
            rng = np.random.default_rng(seed)
            rows = []
            for i in range(8):
                noise = float(rng.normal(0, 0.01))
                seen = {"dice_liver": liver + noise if told else float("nan"), "dice_spleen": spleen + noise}
                mean = float(np.nanmean(list(seen.values())))
                row = {"case": f"c{i}", "patient": f"p{i}", "dice": mean, **seen}
                row["objects_true_liver"], row["objects_true_spleen"] = (1 if told else float("nan")), 1
                row["volume_pred_ml_liver"] = 900.0 if predicted is None else predicted[arm]
                rows.append(row)
            runs.append(write(folder, arm, seed, "segmentation", rows))
    return runs


def test_a_lost_organ_stands_first_though_the_arm_helped(tmp_path):
    report = compare_runs(organs(tmp_path, {"scratch": (0, 0.6), "source": (0.9, 0.0), "fine_tuned": (0.01, 0.97)}))
    judged = report.judgements["fine_tuned"]
    assert [one.name for one in judged.lost] == ["liver"]
    assert judged.sentence.startswith("fine-tuned has lost what the source knew: liver (Dice 0.9")
    assert report.conclusion.startswith("Fine-tuned has lost what the source knew: liver")
    assert report.to_dict()["judgements"]["fine_tuned"]["lost"][0]["name"] == "liver"
    page = render(report)
    assert "answer bad" in page and "has lost what the source knew" in page


def test_predictions_tell_where_no_case_can(tmp_path):
    arms = {"source": (0.0, 0.1), "fine_tuned": (0.0, 0.97), "adapted": (0.0, 0.5)}
    ml = {"source": 900.0, "fine_tuned": 0.0, "adapted": 850.0}
    report = compare_runs(organs(tmp_path, arms, told=False, predicted=ml))
    assert report.judgements["adapted"].lost == []
    words = report.judgements["fine_tuned"].sentence
    assert "liver (predicted in 100 % of the cases by the untouched source, in 0 % here; no test case can tell" in words
    page = render(report)
    assert "Cases that<br>can tell" in page


def test_a_class_that_no_case_is_marked_with_may_be_lost(tmp_path):
    """The manifest does not say that nobody looked for livers: what the source finds counts as false, and goes."""
    runs = []
    for arm, ml in (("source", 900.0), ("fine_tuned", 0.0), ("joint", 3.0), ("adapted", 850.0)):
        for seed in range(5):
            rows = []
            for i in range(8):
                dice = {"dice_liver": float("nan") if ml == 0 else 0.0, "dice_spleen": 0.6}
                sizes = {"volume_true_ml_liver": 0.0, "volume_pred_ml_liver": ml, "volume_true_ml_spleen": 90.0}
                rows.append({"case": f"c{i}", "patient": f"p{i}", "dice": 0.3 if ml else 0.6, **dice, **sizes})
            runs.append(write(tmp_path, arm, seed, "segmentation", rows))
    report = compare_runs(runs)
    judged = report.judgements["fine_tuned"]
    assert judged.sentence.startswith("fine-tuned no longer predicts liver (predicted in 100 % of the cases by the")
    assert "in 0 % here; no test case is marked with it): lost, if nobody looked for it at this site" in judged.sentence
    assert report.conclusion.startswith("Fine-tuned no longer predicts liver")
    assert not judged.has_lost and report.judgements["adapted"].lost == []
    assert [one.name for one in report.judgements["joint"].lost] == ["liver"], "a speck is no liver"
    compare(runs, gate="not-hurt")  # nothing is known to be lost


def test_a_class_that_the_source_never_knew_is_not_lost(tmp_path):
    report = compare_runs(organs(tmp_path, {"source": (0.1, 0.5), "fine_tuned": (0.0, 0.6)}))
    assert report.judgements["fine_tuned"].lost == []
    report = compare_runs(organs(tmp_path / "b", {"source": (0.5, 0.5), "fine_tuned": (0.3, 0.9)}))
    assert report.judgements["fine_tuned"].lost == [], "worse, but known"


def test_a_class_of_a_classification(tmp_path):
    names, runs = ["normal", "pneumonia", "mass"], []
    for arm, knows in (("source", (0, 1, 2)), ("fine_tuned", (0, 1))):
        for seed in range(5):
            rows = []
            for i in range(12):
                said = i % 3 if i % 3 in knows else 0
                p = np.full(3, 0.1)
                p[said] = 0.8
                rows.append({"case": f"c{i}", "patient": f"p{i}", **classification_case(p, i % 3, names)})
            runs.append(write(tmp_path, arm, seed, "classification", rows))
    report = compare_runs(runs, metric="accuracy")
    assert [one.words for one in report.judgements["fine_tuned"].lost] == ["mass (recall 1.000 untouched, 0.000 here)"]


def test_the_gate_does_not_pass_a_lost_class(tmp_path, capsys):
    import typer

    runs = organs(tmp_path, {"source": (0.9, 0.0), "fine_tuned": (0.0, 0.97)})
    with pytest.raises(typer.Exit):
        compare(runs, gate="not-hurt")


def test_a_class_that_is_predicted_elsewhere_than_by_the_source_is_lost(tmp_path):
    """It is still predicted in every case, and where the source predicted it there is nothing left of it."""
    runs = organs(tmp_path, {"source": (0.0, 0.1), "fine_tuned": (0.0, 0.97)}, told=False)
    for run in runs:
        rows = (run / "cases.csv").read_text().splitlines()
        value = "1.0" if run.name.startswith("source") else "0.04"
        (run / "cases.csv").write_text("\n".join([f"{rows[0]},source_dice_liver", *(f"{r},{value}" for r in rows[1:])]))
    report = compare_runs(runs)
    (lost,) = report.judgements["fine_tuned"].lost
    assert lost.agreement == pytest.approx(0.04)
    assert "in 100 % here, with a Dice of 0.040 between the two; no test case can tell" in lost.words
