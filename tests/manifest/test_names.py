"""Names of a manifest are one line of text, whatever stands in it."""

from __future__ import annotations

import pytest

from monai_transfer.errors import InputError
from monai_transfer.manifest.checks import validate
from monai_transfer.manifest.names import MAX_NAME


def manifest(**given):
    items = [
        {"image": given.pop("image", "a.png"), "label": given.pop("label", "normal"), "case": "c1", "patient": "p1"}
        | {"site": given.pop("site", "north")}
    ]
    content = {"name": "x", "description": "", "task": "classification", "modality": "MR", "licence": "x"}
    content |= {"reference": "x", "labels": {"0": "normal", "1": "ill"}, "training": items}
    return content | given


@pytest.mark.parametrize("name", ["$import os", "@a", "%a::b", 'O\'Brien "x"', "läsion #2", "病变", "a" * MAX_NAME])
def test_characters_that_mean_something_elsewhere_are_names(name):
    validate(manifest(labels={"0": "normal", "1": name}, channel_names={"0": name}, modality=name, site=name))


@pytest.mark.parametrize(
    "name", ["a\nimport os", "a\x00", "\x1b[2J", "a\u2028b", "\u202egnp", " ", "a" * (MAX_NAME + 1)]
)
@pytest.mark.parametrize("what", ["labels", "channel_names", "modality", "site"])
def test_what_is_no_line_of_text_is_refused(what, name):
    value = {"labels": {"0": "normal", "1": name}, "channel_names": {"0": name}}.get(what, name)
    with pytest.raises(InputError) as error:
        validate(manifest(**{what: value}), "m.json")
    assert "\n" not in str(error.value) and str(error.value).startswith("m.json: ")


def test_a_suffix_with_a_line_break():
    with pytest.raises(InputError, match="suffix"):
        validate(manifest(image="a.png\nimport os"), "m.json")
