"""Regret, and the rule that the other sets choose, on a table small enough to reckon by hand."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def rules():
    folder = Path(__file__).parents[2] / "benchmarks"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))  # as Python does for a script
        return runpy.run_path(str(folder / "auto_rules.py"))


def rows(name: str, level: float, **scores: float) -> list[dict[str, str]]:
    told = {"set": name, "seed": "0", "k": "2", "level": str(level), "home": "", "patients": "4"}
    return [{**told, "arm": arm, "score": str(score)} for arm, score in scores.items()]


def test_regret_and_leave_one_set_out(rules):
    near = rows("near", 0.8, source=0.80, scratch=0.50, fine_tuned=0.75, joint=0.82, averaged=0.81, joint_averaged=0.84)
    far = rows("far", 0.0, source=0.05, scratch=0.70, fine_tuned=0.66, joint=0.60, averaged=0.30, joint_averaged=0.40)
    cells = rules["cells_of"](near + far)
    regret, below = rules["regret"], rules["below_source"]
    of = {cell["set"]: cell for cell in cells}
    assert regret(of["near"], "always joint") == pytest.approx(0.02)
    assert regret(of["far"], "always joint") == pytest.approx(0.10)
    assert regret(of["near"], "always joint averaged") == 0 == regret(of["near"], "auto's fixed rule")
    assert regret(of["near"], "always averaged") == pytest.approx(0.03)
    assert regret(of["near"], "always averaged", images=False) == 0, "without its images joint training is no candidate"
    assert below(of["near"], "always fine-tuned") and not below(of["near"], "always averaged")
    assert regret(of["far"], "joint if level >= .1, else scratch") == 0
    assert regret(of["far"], "auto's fixed rule, weights alone") == pytest.approx(0.40), "averaged; .30 from .70"
    unknown = {**of["near"], "level": float("nan")}
    assert regret(unknown, "joint averaged if level >= .1, else scratch") == 0, "no level is none to doubt a source by"
    lines = rules["table"](cells).splitlines()
    assert any(line.startswith("| always joint | 0.060 | 0.060 | 0.100 | 0.100 | 0.00 |") for line in lines)
    # what the near set chooses (least regret there) costs on the far one, and the other way round
    far_line = next(line for line in lines if line.startswith("| far (1)"))
    assert far_line.startswith("| far (1) | always joint averaged | 0.300 | always averaged | 0.400 |")


def test_regret_of_means_is_not_measured_against_the_luckiest_seed(rules):
    first = rows("a", 0.8, source=0.5, scratch=0.4, fine_tuned=0.7, joint=0.8, averaged=0.5, joint_averaged=0.6)
    second = rows("a", 0.8, source=0.5, scratch=0.4, fine_tuned=0.9, joint=0.7, averaged=0.5, joint_averaged=0.6)
    cells = rules["cells_of"](first + [{**row, "seed": "1"} for row in second])
    assert [rules["regret"](cell, "always joint") for cell in cells] == pytest.approx([0.0, 0.2])
    assert rules["regret_of_means"](cells, "always joint") == pytest.approx(0.05), "fine-tuned has .80, joint .75"
    assert rules["regret_of_means"](cells, "always fine-tuned", images=False) == pytest.approx(0.0)


def test_cells_that_lack_an_arm_are_left_out(rules):
    whole = rows("a", 0.5, source=0.5, scratch=0.4, fine_tuned=0.6, joint=0.6)
    unfinished = [{**row, "seed": "1"} for row in rows("a", 0.5, source=0.5, scratch=0.4)]
    assert len(rules["cells_of"](whole + unfinished)) == 1


def test_sets_are_judged_by_the_arms_that_all_have(rules):
    more = rows("a", 0.5, source=0.5, scratch=0.4, fine_tuned=0.6, joint=0.6, averaged=0.9, adapted=0.95)
    cells = rules["cells_of"](more + rows("b", 0.5, source=0.5, scratch=0.4, fine_tuned=0.6, joint=0.5))
    assert [sorted(cell["scores"]) for cell in cells] == [["fine_tuned", "joint", "scratch", "source"]] * 2
    assert rules["regret"](cells[0], "always joint") == 0


def test_what_auto_itself_reached(rules):
    scores = {"source": 0.5, "scratch": 0.4, "fine_tuned": 0.6, "joint": 0.7, "averaged": 0.65, "joint_averaged": 0.68}
    first = rows("a", 0.5, **scores, auto=0.6)
    second = [{**row, "seed": "1"} for row in rows("a", 0.5, **scores, auto=0.7)]
    told = [{**row, "taken": taken if row["arm"] == "auto" else ""}
            for own, taken in ((first, "fine_tuned"), (second, "joint")) for row in own]  # fmt: skip
    line = rules["decided"](told + rows("b", 0.5, **scores)).splitlines()[-1]
    assert line.startswith("| a | 2 | 2 | 0.400 | 0.500 |") and line.endswith(
        "| 0.650 | 0.050 | fine tuned 1, joint 1 |"
    )


def test_the_page_shows_the_tables_of_the_rows_that_are_kept(rules):
    root = Path(__file__).parents[2]
    rows = []
    for path in sorted((root / "benchmarks" / "measured" / "auto").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as stream:
            rows += list(csv.DictReader(stream))
    cells = [cell for cell in rules["cells_of"](rows) if cell["patients"] < 8]
    page = (root / "docs" / "auto.md").read_text(encoding="utf-8")
    shown = page.split("<!-- tables -->")[1].split("<!-- end of tables -->")[0]
    expected = f"{rules['table'](cells)}\n\n{rules['decided'](rows)}"
    assert [line for line in expected.splitlines() if line.startswith("|")] == [
        line for line in shown.splitlines() if line.startswith("|")
    ]


def test_choices_by_the_scores_of_held_out_patients(rules):
    """The simplest within one standard error, and the best mean: each loses what the test cases say."""
    told = {"set": "a", "k": "8", "seed": "0", "guess": "0.1"}
    scores = {"source": (0.7, 0.9, 0.7, 0.9), "joint": (0.9, 0.8, 0.9, 0.8), "scratch": (0.2, 0.2, 0.2, 0.3)}
    looked = [
        {**told, "arm": arm, "patient": str(i), "score": str(value)}
        for arm, own in scores.items()
        for i, value in enumerate(own)
    ]
    test = dict.fromkeys(rules["COMPARED"], 0.2) | {"source": 0.5, "joint": 0.8}
    rows = [
        {"set": "a", "k": "8", "seed": "0", "arm": arm, "score": str(value), "taken": ""} for arm, value in test.items()
    ]
    said = dict(line.strip("| ").split(" | ")[:2] for line in rules["choices"](looked, rows).splitlines()[2:])
    assert said["auto: the simplest within one standard error"] == "0.300"
    assert said["the best mean"] == "0.000" and said["always from scratch"] == "0.600"


def test_the_page_shows_the_choices_of_the_scores_that_are_kept(rules):
    measured = Path(__file__).parents[2] / "benchmarks" / "measured"
    read = rules["_read"]
    expected = rules["choices"](
        read(sorted((measured / "auto_held_out").glob("*.csv"))), read(sorted((measured / "auto").glob("*.csv")))
    )
    page = (measured.parents[1] / "docs" / "auto.md").read_text(encoding="utf-8")
    shown = page.split("<!-- choices -->")[1].split("<!-- end of choices -->")[0]
    assert [line.strip() for line in shown.splitlines() if line.strip()] == expected.splitlines()
