"""Fields of another kind are found at any depth, left out where they can be, and refused by name where not."""

from __future__ import annotations

import math

import pytest

from monai_transfer.content_kinds import LARGEST_INTEGER, odd_fields, refuse_odd_fields, without_odd_fields
from monai_transfer.errors import InputError

KIND = {"seed": int, "share": float, "name": str, "on": bool, "sites": (str, [str]), "labels": {"*": str}}
SOUND = {"seed": 3, "share": 0.5, "name": "a", "on": False, "sites": ["a", "b"], "labels": {"0": "b"}, "more": [{}]}


def test_sound_content_and_what_is_not_said_pass():
    assert list(odd_fields(SOUND, KIND)) == []
    assert list(odd_fields(dict.fromkeys(KIND), KIND)) == []
    assert without_odd_fields(SOUND, KIND) == SOUND


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("seed", True, "seed"),
        ("seed", 1.5, "seed"),
        ("seed", LARGEST_INTEGER * 2, "seed"),
        ("share", math.nan, "share"),
        ("share", math.inf, "share"),
        ("share", False, "share"),
        ("name", ["a"], "name"),
        ("on", 1, "on"),
        ("sites", ["a", 2], "sites"),
        ("sites", ["a", None], "sites"),
        ("labels", ["b"], "labels"),
        ("labels", {"0": {"a": 1}}, "labels::0"),
    ],
)
def test_another_kind_is_named_left_out_and_refused(field, value, where):
    content = SOUND | {field: value}
    assert [place for place, _ in odd_fields(content, KIND)] == [where]
    rest = without_odd_fields(content, KIND)
    assert list(odd_fields(rest, KIND)) == [] and rest["more"] == [{}]
    with pytest.raises(InputError, match=f"run.json: {where} is .*; leave it out"):
        refuse_odd_fields(content, KIND, "run.json", "leave it out")


def test_content_that_is_no_mapping_is_refused():
    for content in ([1], None, "x"):
        with pytest.raises(InputError, match="its content is"):
            refuse_odd_fields(content, KIND, "run.json", "leave it out")
