"""The report's part on adaptation: features of both sites, and whether the adversarial game was alive."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image

from monai_transfer.report import compare_runs
from monai_transfer.report.adaptation import feature_alignment, game_sentence, game_sentences, home_sentences
from monai_transfer.report.html import render


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [
        ([0.6, 0.8, 0.95, 0.97], "the discriminator won (right in 97 % at the end)"),
        ([0.5, 0.52, 0.55, 0.5], "never got beyond chance (55 % at best)"),
        ([0.9, 0.8, 0.6, 0.52], "knew the sites (90 % at best) and lost them"),
        ([0.9, 0.8, 0.75, 0.7], "undecided: the discriminator is right in 70 %"),
    ],
)
def test_a_game_in_words(accuracy, words):
    assert words in game_sentence(np.array(accuracy))


@pytest.fixture
def report(study):
    runs = study.write({"source": 0.5, "adapted": 0.6}, seeds=2)
    for folder in runs:
        if folder.name.startswith("adapted"):
            seed = int(folder.name[-1])
            before = {"proxy_a_distance": 2.0, "domain_distance": 3.0 + seed, "class_shift": None}
            after = {"proxy_a_distance": 1.0, "domain_distance": 1.0, "class_shift": None}
            content = {"layer": None, "cases": {"source": 4, "target": 6}, "before": before, "after": after}
            (folder / "alignment.json").write_text(json.dumps(content))
    (study.folder / "adapted-0" / "figures").mkdir()
    Image.new("RGB", (8, 8)).save(study.folder / "adapted-0" / "figures" / "domains.png")
    return compare_runs(runs)


def test_numbers_are_means_over_runs_and_missing_ones_are_dashes(report):
    (found,) = feature_alignment(report)
    assert (found["arm"], found["runs"]) == ("adapted", 2)
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["distance of the sites"]["before"] == 3.5
    assert rows["proxy A-distance"]["after"] == 1.0
    assert math.isnan(rows["class shift"]["before"])
    assert found["uri"].startswith("data:image/png")


def test_the_page_shows_both(report):
    page = render(report)
    assert "The two sites as the network sees them" in page
    assert '<td>class shift</td><td class="n">–</td>' in page
    (sentence,) = game_sentences(report)
    assert sentence.startswith("adapted: the game was alive"), "0.9 in the first epoch, 0.52 in the last"
    assert sentence[1:] in page
    (home,) = home_sentences(report)
    assert home.startswith("adapted: validated on the source")
    assert "dapted: validated on the source" in page


def test_a_report_without_adaptation_says_nothing_of_it(study):
    report = compare_runs(study.write({"source": 0.5, "scratch": 0.6}, seeds=2))
    assert feature_alignment(report) == []
    assert game_sentences(report) == home_sentences(report) == []
    assert "as the network sees them" not in render(report)
