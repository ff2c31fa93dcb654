"""Names come back from MONAI unchanged, whatever stands in them, and nothing in them is run."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser

from monai_transfer.config_text import (
    Expression,
    expr,
    from_config,
    given_to_config,
    quoted,
    ref,
    refuse_keys_of_monai,
    to_config,
)
from monai_transfer.errors import InputError

NASTY = [
    "$import os",
    "$__import__('os').system('true')",
    "%a",
    "%other.yaml::net",
    "@a",
    "@a::b#0",
    "@",
    "a@::b",
    "x %:: y",
    "lesion #2",
    "important.json",
    "#",
    "$'text'",
    "+more",
    "_target_",
    'it\'s "quoted" \\ and \\x23',
    "line\nbreak\ttab\x00\x7f\x85\u2028",
    "Läsion 病変 🧠 \ud800",
    "null",
    "1e-3",
    "- a: b",
    " padded ",
    "",
]


def from_monai(value):
    """As MONAI's own reader gives it back: by itself, inside a container, through a reference, as an argument."""
    config = {
        "plain": to_config(value),
        "inside": {"list": [to_config(value)]},
        "through": "@plain",
        "argument": {"_target_": "builtins.dict", "it": "@plain", "own": to_config(value)},
        "joined": f"$'<' + @plain + {quoted(value)} + '>'",
    }
    parser = ConfigParser(json.loads(json.dumps(config)))
    got = {key: parser.get_parsed_content(key) for key in config}
    assert got["joined"] == f"<{value}{value}>"
    return [got["plain"], got["inside"]["list"][0], got["through"], got["argument"]["it"], got["argument"]["own"]]


@pytest.mark.parametrize("text", NASTY)
def test_text_comes_back_from_monai(text):
    assert from_monai(text) == [text] * 5
    assert from_config(to_config(text)) == text


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("$@%#:_+'\"\\{}[]ab \n"), max_size=12))
@example("@a::0")
def test_drawn_text_comes_back_from_monai(text):
    assert from_monai(text) == [text] * 5
    assert from_config(to_config({"a": [text]})) == {"a": [text]}
    assert yaml.safe_load(yaml.safe_dump(to_config(text))) == to_config(text)


def test_expressions_stay_expressions():
    whole = {"a": expr("1 + 1"), "b": [ref("a")], "c": Expression("%a"), "d": 3, "e": None}
    assert to_config(whole) == {"a": "$1 + 1", "b": ["@a"], "c": "%a", "d": 3, "e": None}
    with pytest.raises(ValueError, match="no MONAI expression"):
        Expression("plain")


def test_what_a_user_sets_may_be_an_expression():
    assert given_to_config(["$1 + 1", "@a", "site #1"]) == ["$1 + 1", "@a", "$'site \\x231'"]


def test_names_that_are_keys_may_not_be_words_of_monai():
    refuse_keys_of_monai({"site": {"$a": [{"b": 1}]}}, "sites")
    with pytest.raises(InputError, match="sites: '_target_' is a word of MONAI's configs.*another name"):
        refuse_keys_of_monai({"prevalence": [{"_target_": 0.5}]}, "sites")
