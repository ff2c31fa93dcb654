"""The page: whole, self-contained, with the words and pictures that it promises."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from monai_transfer.report import compare_runs
from monai_transfer.report.html import render, write_html


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.sources, self.headings, self.tags, self._in = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        self._in = tag

    def handle_data(self, data):
        if self._in in ("h1", "h2") and data.strip():
            self.headings.append(data.strip())
        self._in = None


ARMS = {"scratch": 0.5, "source": 0.6, "fine_tuned": 0.75, "adapted": 0.65, "oracle": 0.8}


@pytest.fixture(scope="module")
def page(shared_study):
    runs = shared_study.write(ARMS, figures=True, sites=2, patients=6)
    path = shared_study.folder / "report.html"
    compare_runs(runs, path)
    return path.read_text()


def test_self_contained(page, shared_study):
    found = Page(page)
    assert found.sources
    assert all(source.startswith("data:") for source in found.sources), "nothing is loaded from anywhere"
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert "@import" not in page
    assert not re.search(r"url\(", page)
    assert str(shared_study.folder) not in page
    assert "/home/someone" not in page, "a weight report may hold a path; the page does not"


def test_all_parts_are_there(page):
    headings = Page(page).headings
    for part in (
        "The ways of training, side by side",
        "Differences, pair by pair",
        "Patient by patient",
        "By site",
        "Examples",
        "How training went",
        "Other measures",
        "What was carried over from the source",
        "How it was measured",
    ):
        assert part in headings
    assert page.count("data:image/jpeg") == 3 * len(ARMS), "best, median and worst case of every arm"
    assert page.count("data:image/svg+xml") == 3
    assert "Transfer helped: fine-tuned reached Dice" in page
    assert "encoder.3.conv.weight" in page
    assert "98.1 %" in page


@pytest.mark.parametrize("task", ["classification", "regression", "localization"])
def test_other_tasks_and_bare_runs(study, task):
    runs = study.write({"scratch": 0.3, "fine_tuned": 0.8}, task, seeds=1, patients=6)
    for run in runs:
        (run / "metrics.csv").unlink()
        (run / "weights.json").unlink(missing_ok=True)
    headings = Page(render(compare_runs(runs))).headings
    assert "How training went" not in headings
    assert "Examples" not in headings
    assert "How it was measured" in headings


def test_names_are_escaped(study):
    runs = study.write({"scratch": 0.5, "<script>x": 0.6}, patients=4, source_site="<b>GE</b>")
    text = render(compare_runs(runs))
    assert "<script>" not in text
    assert "<b>GE" not in text


def test_the_same_runs_give_the_same_page(study):
    runs = study.write({"scratch": 0.5, "fine_tuned": 0.6}, patients=4)
    paths = [write_html(compare_runs(runs), study.folder / name) for name in ("a.html", "b.html")]
    assert len({re.sub(r'base64,[^"]+', "", path.read_text()) for path in paths}) == 1


def test_a_study_without_a_verdict_still_makes_a_page(study):
    runs = study.write({"scratch": 0.3, "source": 0.2, "fine_tuned": 0.9}, "classification", patients=3)
    report = compare_runs(runs)
    text = render(report)
    assert "no verdict" in text
    assert "nan" not in re.sub(r'base64,[^"]+', "", text).lower()
