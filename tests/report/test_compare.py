"""Comparisons of whole studies: the verdicts, what is refused, what is said aloud."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from monai_transfer.errors import InputError
from monai_transfer.report import compare_runs
from monai_transfer.report.html import render
from monai_transfer.report.statistics import HELPED, HURT, NO_EVIDENCE, NO_VERDICT, crossed_difference


def test_transfer_that_helps(study):
    runs = study.write({"scratch": 0.55, "source": 0.6, "fine_tuned": 0.78, "adapted": 0.6, "oracle": 0.85})
    report = compare_runs(runs[::-1])
    assert list(report.arms) == ["scratch", "source", "fine_tuned", "adapted", "oracle"], "in the order of a report"
    assert report.judgements["fine_tuned"].word == HELPED
    assert report.judgements["adapted"].word != HELPED
    assert set(report.judgements) == {"fine_tuned", "adapted"}
    assert report.judgements["fine_tuned"].differences["scratch"].mean == pytest.approx(0.23, abs=0.03)
    arms = {name: arm.mean for name, arm in report.arms.items()}
    gap = (arms["fine_tuned"] - arms["source"]) / (arms["oracle"] - arms["source"])
    assert report.judgements["fine_tuned"].gap_recovered == pytest.approx(gap)
    low, high = report.judgements["fine_tuned"].gap_interval
    assert low < gap < high
    assert f"{100 * low:.0f} % to {100 * high:.0f} %" in report.judgements["fine_tuned"].sentence
    assert report.conclusion.startswith("Transfer helped: fine-tuned reached Dice 0.7")
    assert all(word in report.verdicts[0] for word in ("helped", "training from scratch", "the untouched source"))


def test_the_tables_behind_it(study):
    runs = study.write({"scratch": 0.55, "source": 0.6, "fine_tuned": 0.7})
    report = compare_runs(runs)

    def values(arm, seed):
        with (study.folder / f"{arm}-{seed}" / "cases.csv").open() as stream:
            return [float(row["dice"]) for row in csv.DictReader(stream)]

    tuned = np.array([values("fine_tuned", s) for s in range(5)])
    scratch = np.array([values("scratch", s) for s in range(5)])
    source = np.array([values("source", 0)] * 5)
    for baseline, table in (("scratch", scratch), ("source", source)):
        expected, got = crossed_difference(tuned - table), report.judgements["fine_tuned"].differences[baseline]
        assert (got.mean, got.low, got.high) == pytest.approx((expected.mean, expected.low, expected.high))


def test_beating_scratch_is_not_enough_where_the_source_is_better_still(study):
    report = compare_runs(study.write({"scratch": 0.55, "source": 0.85, "fine_tuned": 0.79}))
    judged = report.judgements["fine_tuned"]
    assert judged.word == HURT
    assert "better than training from scratch" in judged.sentence
    assert "worse than the untouched source" in judged.sentence
    assert "The untouched source by itself beats training from scratch" in report.conclusion


def test_the_better_of_two_scratches_counts(study):
    """Planned for the data and in the source's network: an arm helps where it beats both, and hurts against one."""
    means = {"scratch": 0.8, "scratch_same": 0.5, "source": 0.55, "fine_tuned": 0.7}
    report = compare_runs(study.write(means), study.folder / "report.html")
    judged = report.judgements["fine_tuned"]
    assert judged.word == HURT and set(judged.differences) == {"scratch", "scratch_same", "source"}
    assert "better than training the source's network from scratch" in judged.sentence
    assert "negative transfer" in judged.sentence and set(report.judgements) == {"fine_tuned"}
    assert report.best_scratch == "scratch"
    assert report.baseline_difference.mean == pytest.approx(report.arms["source"].mean - report.arms["scratch"].mean)
    page = (study.folder / "report.html").read_text()
    assert "scratch<br>in the source's network" in page and "98.7 %" in page
    alone = compare_runs(study.write({**means, "scratch": 0.45, "source": 0.4}))
    assert alone.best_scratch == "scratch_same" and alone.judgements["fine_tuned"].word == HELPED


def test_negative_transfer_is_said_aloud(study):
    report = compare_runs(study.write({"scratch": 0.8, "source": 0.5, "fine_tuned": 0.7}))
    assert report.judgements["fine_tuned"].word == HURT
    assert "negative transfer" in report.verdicts[0]
    assert report.conclusion.startswith("Transfer hurt: fine-tuned")


def test_no_difference_is_no_evidence(study):
    report = compare_runs(study.write({"scratch": 0.7, "source": 0.5, "fine_tuned": 0.7}, luck=0.05))
    assert report.judgements["fine_tuned"].word == NO_EVIDENCE
    assert "would have been seen in 80 % of such studies" in report.verdicts[0]
    assert "no evidence" in report.conclusion


def test_few_seeds_give_numbers_but_no_verdict(study):
    report = compare_runs(study.write({"scratch": 0.5, "source": 0.5, "fine_tuned": 0.9}, seeds=3))
    judged = report.judgements["fine_tuned"]
    assert (judged.word, judged.reason) == (NO_VERDICT, "fewer than 5 seeds (3)")
    assert judged.differences["scratch"].low > 0
    assert any("at least 5" in warning for warning in report.warnings)
    single = compare_runs(study.write({"scratch": 0.5, "fine_tuned": 0.9}, seeds=1))
    assert single.judgements["fine_tuned"].word == NO_VERDICT


def test_one_baseline_is_said(study):
    report = compare_runs(study.write({"source": 0.5, "adapted": 0.8}))
    assert report.judgements["adapted"].word == HELPED
    assert "nothing about training from scratch" in report.verdicts[0]
    lone = compare_runs(study.write({"fine_tuned": 0.8}))
    assert lone.judgements["fine_tuned"].word == NO_VERDICT
    assert compare_runs(study.write({"scratch": 0.5, "source": 0.8})).conclusion


def test_classification_and_regression(study, tmp_path):
    runs = study.write({"scratch": 0.15, "source": 0.05, "fine_tuned": 0.9}, "classification", patients=40)
    report = compare_runs(runs)
    assert report.metric == "auc"
    assert report.judgements["fine_tuned"].word == HELPED
    assert report.arms["fine_tuned"].mean == pytest.approx(report.arms["fine_tuned"].metrics["auc"], abs=0.02)
    assert compare_runs(runs, metric="log_loss").judgements["fine_tuned"].word == HELPED, "smaller is better"
    study.folder = tmp_path / "regression"
    runs = study.write({"scratch": 0.3, "source": 0.1, "fine_tuned": 0.9}, "regression")
    report = compare_runs(runs)
    assert (report.metric, report.higher_is_better) == ("mae", False)
    assert report.judgements["fine_tuned"].word == HELPED
    assert report.judgements["fine_tuned"].differences["scratch"].mean > 0, "a gain is positive"


def test_an_auc_without_enough_patients_gives_no_verdict(study):
    report = compare_runs(study.write({"scratch": 0.3, "fine_tuned": 0.9}, "classification", patients=3))
    judged = report.judgements["fine_tuned"]
    assert judged.word == NO_VERDICT
    assert "too few" in judged.reason
    json.dumps(report.to_dict(), allow_nan=False)
    report.table()


def edit(folder, change):
    path = folder / "cases.csv"
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows = change(rows)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_false_positive_on_empty_truth_counts_against_the_arm(study):
    runs = study.write({"scratch": 0.7, "fine_tuned": 0.7}, luck=0.001)
    plain = compare_runs(runs).judgements["fine_tuned"].differences["scratch"].mean

    def empty(rows, value):
        return [row | ({"dice": value} if row["case"] == "case-000" else {}) for row in rows]

    for run in runs:
        edit(run, lambda rows, arm=run.name: empty(rows, "0.0" if arm.startswith("fine") else ""))
    report = compare_runs(runs)
    assert report.n_patients == 12
    assert report.judgements["fine_tuned"].differences["scratch"].mean < plain - 0.05
    assert any("not there" in warning for warning in report.warnings)
    for run in runs:
        edit(run, lambda rows: empty(rows, ""))
    report = compare_runs(runs)
    assert report.n_patients == 11
    assert any("1 patient(s) have no Dice" in warning for warning in report.warnings)


def test_sites_have_rows_of_their_own(study):
    report = compare_runs(study.write({"scratch": 0.5, "source": 0.6, "fine_tuned": 0.7}, sites=2))
    assert [(site.site, site.n_patients) for site in report.sites] == [("site A", 6), ("site B", 6)]
    assert report.sites[0].differences["fine_tuned"]["scratch"].mean == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(
    ("arm", "record", "match"),
    [
        ("fine_tuned", {"steps": 900}, "Unequal training budgets"),
        ("fine_tuned", {"labelled_train": 8}, "Unequal numbers of labelled target cases"),
        ("source", {"manifest_sha256": "00"}, "different manifests"),
        ("fine_tuned", {"pretrained_sha256": "00"}, "different source weights"),
    ],
)
def test_what_is_not_equal_is_said(study, arm, record, match):
    runs = study.write({"scratch": 0.5, "source": 0.6, "fine_tuned": 0.7})
    assert not any(match in warning for warning in compare_runs(runs).warnings)
    for run in (r for r in runs if r.name.startswith(arm)):
        path = run / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | record))
    assert any(match in warning for warning in compare_runs(runs).warnings)


def test_a_source_as_it_came_and_fitted_to_the_network_is_one(study):
    """Fine-tuning starts from the one file, evaluation of the untouched source reads the other."""
    runs = study.write({"source": 0.6, "fine_tuned": 0.7})
    for run in runs:
        path = run / "run.json"
        record = {"pretrained_sha256": run.name[:2], "source_sha256": "ab" * 32}
        path.write_text(json.dumps(json.loads(path.read_text()) | record))
    assert not any("different source weights" in warning for warning in compare_runs(runs).warnings)


def test_each_seed_may_have_a_source_of_its_own(study):
    def warned(runs):
        return any("different source weights" in warning for warning in compare_runs(runs).warnings)

    def start(runs, **of_seed):
        for run in runs:
            path, seed = run / "run.json", run.name.rpartition("-")[2]
            digest = of_seed.get(run.name.replace("-", "_"), seed)
            path.write_text(json.dumps(json.loads(path.read_text()) | {"pretrained_sha256": digest * 32}))

    runs = study.write({"source": 0.6, "adapted": 0.7, "fine_tuned": 0.7}, source_once=False)
    assert not compare_runs(runs).source_per_seed, "one source, or none that is known"
    start(runs)
    assert not warned(runs) and compare_runs(runs).source_per_seed
    assert "from another random seed and a source of its own." in render(compare_runs(runs))
    start(runs, adapted_3="0")
    assert warned(runs)
    once = study.write({"source": 0.6, "adapted": 0.7})
    start(once)
    assert warned(once), "a source that was run once is that of one seed only"


def test_identical_seeds_are_noticed(study):
    runs = study.write({"scratch": 0.5, "fine_tuned": 0.7})
    for run in runs[6:]:
        (run / "cases.csv").write_text((runs[5] / "cases.csv").read_text())
    assert any("All seeds of fine-tuned gave identical results" in warning for warning in compare_runs(runs).warnings)


def test_what_cannot_be_compared_is_refused(study):
    runs = study.write({"scratch": 0.5, "source": 0.6, "fine_tuned": 0.7})
    with pytest.raises(InputError, match="different seeds"):
        compare_runs(runs[:-1])
    with pytest.raises(InputError, match="second run of arm scratch"):
        compare_runs([*runs, runs[0]])
    with pytest.raises(InputError, match="no metric 'auc'"):
        compare_runs(runs, metric="auc")
    with pytest.raises(InputError, match="no runs"):
        compare_runs([])
    edit(runs[3], lambda rows: rows[1:])
    with pytest.raises(InputError, match="other cases than scratch-0.*same test split"):
        compare_runs(runs)
    record = runs[3] / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"workflow": "pretrain"}))
    with pytest.raises(InputError, match="was tested at its own site; `monai-transfer run BUNDLE evaluate --run"):
        compare_runs(runs)


def test_cells_that_cannot_be_read_name_the_file(study):
    runs = study.write({"scratch": 0.5, "fine_tuned": 0.7})
    edit(runs[2], lambda rows: [row | {"dice": "high"} for row in rows])
    with pytest.raises(InputError, match=r"scratch-2.*cases.csv.*no number"):
        compare_runs(runs)
    edit(runs[2], lambda rows: [{k: v for k, v in row.items() if k != "dice"} for row in rows])
    with pytest.raises(InputError, match=r"scratch-2.*column"):
        compare_runs(runs)


def test_json_holds_everything_without_nan(study):
    content = compare_runs(study.write({"scratch": 0.5, "source": 0.6, "fine_tuned": 0.7}, sites=2)).to_dict()
    again = json.loads(json.dumps(content, allow_nan=False))
    assert again["judgements"]["fine_tuned"]["word"] == HELPED
    assert again["judgements"]["fine_tuned"]["detectable"] > 0
    assert len(again["arms"]["fine_tuned"]["per_seed"]) == 5
    assert str(study.folder) not in json.dumps(content), "no path of this machine"


def test_lesions_found_on_more_patients(study):
    runs = study.write({"scratch": 0.3, "source": 0.3, "fine_tuned": 0.95}, "localization", patients=16)
    report = compare_runs(runs)
    assert report.metric == "froc" and report.higher_is_better
    fine = report.arms["fine_tuned"]
    assert fine.mean > report.arms["source"].mean + 0.2
    assert set(fine.metrics) >= {"sensitivity", "sensitivity_at_1", "ap", "box_iou", "pointing_game", "false_positives"}
    assert "FROC score" in report.judgements["fine_tuned"].sentence
    alarms = compare_runs(runs, metric="false_positives")
    assert not alarms.higher_is_better and alarms.judgements["fine_tuned"].differences["source"].mean > 0
    pointed = compare_runs(runs, metric="pointing_game")  # the healthy have none
    assert pointed.n_patients == 12 and any("4 patient(s)" in line for line in pointed.warnings)
