"""What `new` says of sites where not every class was looked for."""

from __future__ import annotations

import pytest

from monai_transfer.bundle.planning.partly_annotated import tell_partly_annotated
from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.manifest import Manifest


def told(annotated, *, sites=("north", "south"), cases=None, **more) -> list[str]:
    items = [
        {"image": f"{site}{i}.png", "label": f"{site}{i}_mask.png", "case": f"{site}{i}", "patient": f"{site}{i}"}
        | {"site": site}
        | ({"annotated": cases[i]} if cases and cases[i] is not None else {})
        for site in sites
        for i in range(3)
    ]
    content = {"name": "organs", "task": "segmentation", "labels": {"0": "background", "1": "liver", "2": "spleen"}}
    content |= {"training": items[::2], "test": items[1::2]} | ({"annotated": annotated} if annotated else {}) | more
    reasons = Reasons()
    tell_partly_annotated(Manifest.from_dict(content), reasons)
    return reasons.lines()


@pytest.mark.parametrize("annotated", [{}, {"north": ["liver", "spleen"]}])
def test_nothing_is_said_where_every_class_was_looked_for(annotated):
    assert told(annotated) == []


def test_which_classes_at_which_site():
    (line,) = told({"north": ["liver"]})
    assert line.startswith("annotated north: liver (3 cases): 3 of 6 labelled cases, the others not looked for")
    (line,) = told({"north": ["liver"], "south": ["spleen"]})
    assert line.startswith("annotated north: liver (3 cases); south: spleen (3 cases): 6 of 6 labelled cases")


def test_cases_of_one_site_that_differ():
    (line,) = told({}, sites=("north",), cases=[["liver"], None, ["spleen"]])
    assert "north: liver (1 case); north: spleen (1 case): 2 of 3 labelled cases" in line


def test_regions_are_called_by_their_own_names_and_many_sites_are_counted():
    regions = {"regions": {"organ": [1, 2], "spleen": [2]}}
    (line,) = told({"north": ["spleen"]}, **regions)
    assert "north: spleen (3 cases)" in line
    sites = tuple("abcdef")
    (line,) = told({site: ["liver"] for site in sites}, sites=sites)
    assert "d: liver (3 cases); and 2 more: 18 of 18" in line and "f: liver" not in line
