"""The worst stands first: below a baseline in all seeds, memorised cases, few patients, a coarse grid, a blob."""

from __future__ import annotations

import csv
import json

import pytest

from monai_transfer import compare_runs
from monai_transfer.report.html import render


def edit(folders, name, **more):
    for folder in folders:
        path = folder / name
        content = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**content, **more}))


def test_below_a_baseline_in_all_seeds_is_the_headline(study):
    effects = {"scratch": 0.40, "source": 0.70, "fine_tuned": 0.66}
    report = compare_runs(study.write(effects, seeds=3, luck=0.001))
    assert report.judgements["fine_tuned"].word == "no verdict"
    assert report.conclusion.startswith("Fine-tuned (Dice 0.6")
    assert "is below the untouched source (0.698) by 0.042" in report.conclusion
    assert "in all 3 seeds; not proven at this size (12 patients)" in report.conclusion
    assert "To try next: --arms joint,joint_averaged,averaged,auto." in report.conclusion
    assert 0.02 < report.judgements["fine_tuned"].below["source"] < 0.07
    assert "no evidence" not in report.conclusion
    better = compare_runs(study.write({**effects, "fine_tuned": 0.8}, seeds=3, luck=0.001))
    assert not better.judgements["fine_tuned"].below and "is below" not in better.conclusion


def test_an_arm_without_labels_is_held_against_the_source(study):
    effects = {"scratch": 0.80, "source": 0.60, "adapted": 0.65}
    runs = study.write(effects, seeds=3, luck=0.001)
    for arm, count in (("scratch", 4), ("source", 0), ("adapted", 0)):
        edit([r for r in runs if r.name.startswith(arm)], "run.json", labelled_target=count, workflow="adapt")
    report = compare_runs(runs)
    assert not report.judgements["adapted"].below and "is below" not in report.conclusion
    worse = study.write({**effects, "adapted": 0.55}, seeds=3, luck=0.001)
    edit([r for r in worse if r.name.startswith("adapted")], "run.json", labelled_target=0, workflow="adapt")
    assert list(compare_runs(worse).judgements["adapted"].below) == ["source"]


def test_an_adapted_arm_is_held_against_its_control(study):
    def told(adapted):
        report = compare_runs(study.write({"source": 0.5, "adapted": adapted, "target_statistics": 0.6}))
        assert report.judgements["adapted"].word == "helped"
        assert ("Adapted is not shown to be more than its control (target" in report.conclusion) == bool(
            report.unbeaten
        )
        return [text for text in report.warnings if "its control" in text]

    (sentence,) = told(0.6)
    assert sentence.startswith("Adapted is not shown to be better than its control, target statistics (difference")
    assert told(0.8) == [], "better than it, beyond chance"


@pytest.mark.parametrize("patients", [1, 2])
def test_one_or_two_patients_have_no_interval_and_no_green(study, patients):
    report = compare_runs(study.write({"scratch": 0.4, "source": 0.5, "fine_tuned": 0.9}, patients=patients))
    assert report.alarms[0].startswith(f"There {'is' if patients == 1 else 'are'} only")
    assert all(arm.low != arm.low for arm in report.arms.values())
    assert report.judgements["fine_tuned"].word == "no verdict"
    page = render(report)
    assert "answer good" not in page and "badge good" not in page and "Read this first" in page


def test_memorised_cases(study):
    folders = study.write({"scratch": 0.3, "source": 0.5, "fine_tuned": 0.5}, seeds=2)
    for folder in folders:
        path = folder / "metrics.csv"
        if not path.is_file():
            continue
        learnt = "0.95" if folder.name.startswith("fine_tuned") else "0.4"
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([["epoch", "split", "training_dice"], ["1", "training", learnt]])
    alarm = compare_runs(folders).alarms
    assert len(alarm) == 1
    assert alarm[0].startswith("Fine-tuned memorised its 3 labelled cases: Dice 0.950 in training, 0.491")
    assert "--arms joint,joint_averaged" in alarm[0]


def test_a_blob_and_a_coarse_grid(study):
    folders = study.write({"scratch": 0.3, "source": 0.5, "fine_tuned": 0.6}, seeds=2)
    guesses = {"blob": {"tumour": 0.55}, "everything": {"tumour": 0.1}, "working_grid": {"tumour": 0.62}}
    edit(folders, "summary.json", guesses=guesses)
    report = compare_runs(folders)
    blob, grid = report.alarms
    useless = "From scratch and untouched source are useless here: an ellipsoid in the middle of every image has 0.550"
    assert report.conclusion.startswith(useless + ", and none of them is above it.")
    assert "cut about the structure" in blob and report.centred_blob == 0.55
    assert "tumour 0.620" in grid and "finer --spacing" in grid
    edit(folders, "summary.json", guesses={**guesses, "blob": {"tumour": 0.9}, "working_grid": {"tumour": 0.97}})
    report = compare_runs(folders)
    assert len(report.alarms) == 1 and report.conclusion.startswith("Every arm is useless here")


def test_one_arm_below_a_blob_has_no_order_to_warn_of(study):
    folders = study.write({"scratch": 0.2, "source": 0.6, "fine_tuned": 0.7}, seeds=2)
    edit(folders, "summary.json", guesses={"blob": {"tumour": 0.4}, "everything": {"tumour": 0.1}})
    report = compare_runs(folders)
    told = "From scratch is useless here: an ellipsoid in the middle of every image has 0.400, and it is not above it."
    assert report.conclusion.endswith(told), "the arms' own result stands first"
    assert not any("order of arms" in alarm for alarm in report.alarms)
    assert "Read nothing into the order" not in render(report)


def test_dice_at_chance(study):
    folders = study.write({"scratch": 0.1, "source": 0.1, "fine_tuned": 0.1}, seeds=3)
    edit(folders, "summary.json", guesses={"everything": {"tumour": 0.2}})
    assert compare_runs(folders).conclusion.startswith("All arms are at chance: none is told apart from calling")


def test_own_arms_are_described_by_what_they_did(study):
    folders = study.write({"scratch": 0.4, "source": 0.5, "mine": 0.6, "held": 0.6}, seeds=2)
    edit([f for f in folders if f.name.startswith("mine")], "run.json", joint=True)
    for folder in folders:
        if folder.name.startswith("held"):
            method = "monai_transfer.methods.l2_sp.L2Sp"
            (folder / "config.yaml").write_text(f"regulariser: {{_target_: {method}}}\naverage: rule\n")
    page = render(compare_runs(folders))
    assert "starts from the source model, trained on the labelled target cases and, in each batch as many, on" in page
    assert "held to the source by l2 sp; averaged with the source when training ends" in page


def test_a_bundles_joint_recipe_is_not_called_fine_tuned(study):
    folders = study.write({"scratch": 0.4, "source": 0.5, "fine_tuned": 0.6}, seeds=2)
    edit([f for f in folders if f.name.startswith("fine_tuned")], "run.json", joint=True)
    report = compare_runs(folders)
    assert "joint" in report.judgements and "fine_tuned" not in report.judgements
    assert report.verdicts[0].startswith("joint training:")
