"""The table's rows from drawn studies: gains that are a control's too are not a method's; nothing is said of no run."""

from __future__ import annotations

import pytest

from monai_transfer.errors import InputError
from monai_transfer.metrics.masks import MASK_METRICS
from monai_transfer.report.run import Run
from monai_transfer.study.truth_table import markdown, measure, write_section


def load(folders) -> dict[str, dict[int, Run]]:
    runs: dict[str, dict[int, Run]] = {}
    for folder in folders:
        run = Run.load(folder)
        runs.setdefault(run.arm, {})[run.seed] = run
    return runs


@pytest.fixture
def runs(study):
    effects = {"source": 0.4, "target_statistics": 0.6, "coral": 0.6, "dann": 0.7, "mmd": 0.3, "oracle": 0.8}
    return load(study.write(effects, patients=24))


def test_words_follow_source_and_control(runs):
    rows = {
        name: measure(name, "no target labels", runs, ["target_statistics"])
        for name in ("coral", "dann", "mmd", "adda")
    }
    assert rows["dann"].word == "helped"
    assert rows["dann"].recovered[1] < 0.75 < rows["dann"].recovered[2], "(0.7 - 0.4) / (0.8 - 0.4)"
    assert rows["coral"].word == "no evidence", "the control has that gain too"
    assert rows["coral"].gain.low > 0
    assert any("BatchNorm statistics and without the method" in note for note in rows["coral"].notes)
    assert rows["mmd"].word == "hurt"
    assert rows["adda"].word == "not run"
    assert rows["adda"].mean is None


def test_the_gap_is_silent_where_the_oracle_is_no_better(study):
    runs = load(study.write({"source": 0.6, "dann": 0.7, "oracle": 0.5}))
    row = measure("dann", "no target labels", runs)
    assert row.recovered is None
    assert any("oracle is not better" in note for note in row.notes)
    assert row.word == "helped"


def test_failures_missing_controls_and_few_seeds_are_said(study):
    runs = load(study.write({"source": 0.4, "dann": 0.7}, seeds=3))
    row = measure("dann", "no target labels", runs, ["target_statistics"], failures={3: "boom", 4: "boom"})
    assert row.word == "no verdict"
    assert "failed (seed 3, 4): boom" in row.notes
    assert any("target statistics was not run" in note for note in row.notes)
    assert "3 seeds only" in row.notes
    assert measure("mcd", "no target labels", runs, failures={0: "boom"}).word == "failed"


def test_better_than_its_control_yet_not_than_plain_augmentation(study):
    effects = {"source": 0.4, "target_statistics": 0.5, "dann": 0.6, "intensity_randomisation": 0.7}
    row = measure(
        "dann", "no target labels", load(study.write(effects)), ["target_statistics"],
        compare_with="intensity_randomisation",
    )  # fmt: skip
    assert row.word == "helped"
    assert any("not shown to be better than intensity randomisation alone" in note for note in row.notes)


def test_regression_counts_less_error_as_a_gain(study):
    runs = load(study.write({"source": 0.2, "dann": 0.6, "oracle": 0.8}, task="regression", patients=40))
    row = measure("dann", "no target labels", runs)
    assert row.gain.mean > 0
    assert 0 < row.recovered[0] < 1


def test_markdown_has_one_line_a_row(runs):
    rows = [measure("source", "reference", runs), measure("dann", "x", runs), measure("adda", "x", runs)]
    lines = markdown(rows, MASK_METRICS["dice"]).splitlines()
    assert len(lines) == 5
    assert len({line.count("|") for line in lines}) == 1
    assert "untouched source" in lines[2]
    assert "| not run |" in lines[4]


def test_a_section_is_replaced_and_the_rest_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nwords\n")
    write_section(page, "one", "first")
    write_section(page, "two", "second")
    write_section(page, "one", "third")
    text = page.read_text()
    assert text.startswith("# Title\n\nwords\n")
    assert "first" not in text
    assert text.index("third") < text.index("second")
    page.write_text(text.replace("<!-- end of truth table: one -->", ""))
    with pytest.raises(InputError, match="do not pair"):
        write_section(page, "one", "fourth")


def test_the_price_at_home_stands_in_a_column_of_its_own(study, tmp_path):
    abroad = load(study.write({"source": 0.4, "dann": 0.7}, patients=24))
    homes = load(type(study)(tmp_path / "home").write({"source": 0.9, "dann": 0.8}, patients=24))
    rows = [measure(name, "x", abroad, homes=homes) for name in ("source", "dann")]
    assert rows[0].home[1] is None, "the source is what the others are held against"
    mean, gain = rows[1].home
    assert mean.mean == pytest.approx(0.8, abs=0.05) and gain.mean == pytest.approx(-0.1, abs=0.05)
    lines = markdown([*rows, measure("adda", "x", abroad, homes=homes)], MASK_METRICS["dice"]).splitlines()
    assert "at home" in lines[0] and len({line.count("|") for line in lines}) == 1
    assert "−0.1" in lines[3].split("|")[7] and lines[4].split("|")[7].strip() == ""
    assert "at home" not in markdown([measure("dann", "x", abroad)], MASK_METRICS["dice"])
