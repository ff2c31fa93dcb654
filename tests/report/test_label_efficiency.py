"""Curves over the number of labels: the counts read off them, their intervals, and the page."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from monai_transfer.errors import InputError
from monai_transfer.report.compare import compare_runs
from monai_transfer.report.html import write_efficiency
from monai_transfer.report.label_efficiency import label_efficiency, labels_needed
from monai_transfer.report.run import Run

COUNTS = (1, 2, 4, 8, 16)
SCRATCH = {1: 0.30, 2: 0.40, 4: 0.50, 8: 0.60, 16: 0.70}
JOINT = {1: 0.45, 2: 0.55, 4: 0.65, 8: 0.72, 16: 0.75}


def run(arm: str, seed: int, value: float, labelled: int, workflow: str = "train") -> Run:
    record = {"task": "segmentation", "arm": arm, "seed": seed, "labels": {"0": "background", "1": "liver"}}
    record |= {"workflow": workflow, "labelled_train": labelled}
    values = [value + 0.02 * n + 0.01 * seed * (n % 2) - 0.05 for n in range(6)]
    cases = [{"case": f"c{n}", "patient": f"p{n}", "site": "x", "dice": str(v)} for n, v in enumerate(values)]
    return Run(Path(f"{arm}-{seed}"), record, cases)


def reports(seeds: int, source: float = 0.52, counts=COUNTS):
    found = {}
    for k in counts:
        runs = [run(arm, s, own[k], k) for arm, own in (("scratch", SCRATCH), ("joint", JOINT)) for s in range(seeds)]
        runs.append(run("source", 0, source, 0, "evaluate"))
        found[k] = compare_runs(runs)
    return found


def test_counts_are_read_off_a_logarithmic_axis():
    assert labels_needed([1, 2, 4], [0.1, 0.3, 0.5], 0.4) == pytest.approx(2 * math.sqrt(2))
    assert labels_needed([1, 4], [0.1, 0.5], 0.3) == pytest.approx(2)
    assert labels_needed([2, 4], [0.5, 0.4], 0.5) == 2
    assert labels_needed([1, 2, 4], [0.4, 0.2, 0.6], 0.5) == pytest.approx(2 * 2**0.75), "a dip on the way"
    assert math.isinf(labels_needed([1, 2], [0.1, 0.2], 0.3))


def test_an_arm_beside_scratch():
    found = label_efficiency(reports(5))
    joint = {one.scratch_with: one for one in found.needed["joint"]}
    assert [one.labels for one in found.needed["joint"][:2]] == [1, 1], "there at once: at most the smallest count"
    assert joint[4].labels == pytest.approx(2**0.5, rel=1e-6)  # .50 lies halfway between .45 and .55
    assert joint[16].labels == pytest.approx(4 * 2 ** (5 / 7), rel=1e-6)  # .70: five sevenths of .65 to .72
    assert joint[16].low <= joint[16].labels <= joint[16].high < 8
    assert found.words(joint[1]) == "at most 1"
    # equal shifts of all patients and seeds change neither curve against the other: the interval is the point
    assert joint[16].high - joint[16].low < 1e-6


def test_an_arm_without_labels_needs_none_or_does_not_get_there():
    found = label_efficiency(reports(5))
    source = [one.labels for one in found.needed["source"]]
    assert source == [0, 0, 0, math.inf, math.inf]
    assert [found.words(one) for one in found.needed["source"]][2:4] == ["none", "more than 16"]
    assert "Untouched source does not get there with 16." in found.sentences
    assert found.conclusion == (
        "Training from scratch reaches Dice 0.710 with 16 labelled cases; joint training needs 6.6 for the same."
    )
    best = label_efficiency(reports(5, source=0.9))
    assert "Untouched source is as good without one." in best.sentences


def test_patients_that_differ_give_an_interval():
    given = reports(5)
    for report in given.values():
        for of_seed in report.runs["joint"].values():
            for row in of_seed.cases:  # half of the patients gain more from the source than the others
                row["dice"] = str(float(row["dice"]) + (0.06 if row["patient"] in ("p0", "p2", "p4") else -0.06))
    last = label_efficiency(
        {k: compare_runs([r for o in v.runs.values() for r in o.values()]) for k, v in given.items()}
    )
    one = last.needed["joint"][-1]
    assert one.labels == pytest.approx(4 * 2 ** (5 / 7), rel=1e-6) and one.low < 6 and one.high > 8
    assert last.words(one).startswith("6.6 (")


def test_too_few_seeds_have_no_interval():
    found = label_efficiency(reports(2))
    assert math.isnan(found.needed["joint"][-1].low) and found.words(found.needed["joint"][-1]) == "6.6"


def test_a_score_that_is_missing_is_said():
    given = reports(2)
    given[4].arms["joint"].mean = math.nan
    found = label_efficiency(given)
    assert found.words(found.needed["joint"][-1]) == "–"
    assert "Joint training cannot be compared: a score is missing." in found.sentences
    assert found.conclusion.endswith("joint training cannot be compared: a score is missing.")


def test_what_makes_no_curve():
    with pytest.raises(InputError, match="makes no curve"):
        label_efficiency(reports(2, counts=(4,)))
    alone = {k: compare_runs([run("joint", s, JOINT[k], k) for s in (0, 1)]) for k in (1, 2)}
    found = label_efficiency(alone)
    assert found.needed == {} and found.conclusion.startswith("No arm from scratch was run")
    fixed = {}
    for k in (1, 2):
        arms = [("scratch", SCRATCH[k], k), ("eight", 0.6, 8)]
        fixed[k] = compare_runs([run(arm, seed, value, n) for arm, value, n in arms for seed in (0, 1)])
    assert "eight" not in label_efficiency(fixed).needed, "an arm whose own setting fixes its number of labels"


def test_the_page_and_its_table(tmp_path):
    page = write_efficiency(label_efficiency(reports(5)), tmp_path / "label_efficiency.html")
    text = page.read_text(encoding="utf-8")
    assert "joint training needs 6.6 for the same" in text
    assert (
        "none" in text
        and "more than 16" in text
        and "data:image/svg+xml" in text
        and "http" not in text.split("data:")[0]
    )
    with (tmp_path / "label_efficiency.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * len(COUNTS)
    last = next(row for row in rows if row["arm"] == "joint" and row["scratch_with"] == "16")
    assert float(last["mean"]) == pytest.approx(0.76) and float(last["labels_to_equal_scratch"]) == pytest.approx(
        6.56, abs=0.01
    )
