"""Text of others is read as plain data, and what is beyond a limit is refused within about a second."""

from __future__ import annotations

import time

import pytest

from monai_transfer.errors import InputError
from monai_transfer.safe_parse import MAX_CONFIG_BYTES, parse_json, parse_yaml, read_config, read_json

LETTERS = "abcdefghi"
ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip(LETTERS, LETTERS[1:], strict=False)
)
YAML = {
    "aliases of aliases": ALIASES,
    "merged aliases": ALIASES.replace("[x,x,x,x,x,x,x,x,x]", "{x: 1}") + "z: {<<: [*b, *b]}",
    "an alias in itself": "a: &a [*a]",
    "brackets": "[" * 200_000,
    "braces": "{" * 200_000,
    "dashes": "- " * 200_000,
    "questions": "? " * 200_000,
    "a million items": "- a\n" * 1_000_000,
    "a number by sixties": "a: 1" + ":1" * 100_000,
    "a long number": "a: " + "1" * 100_000,
    "a long hexadecimal number": "a: 0x" + "f" * 100_000,
    "an object": "!!python/object/apply:os.system ['touch canary']",
    "a module": "!!python/module:os ''",
    "no YAML": "a: b: c",
    "an unhashable key": "{[1, 2]: 3, {a: b}: 4}",
}
JSON = {
    "200,000 levels": "[" * 200_000 + "]" * 200_000,
    "900 levels": '{"a":' * 900 + "1" + "}" * 900,
    "many lists": "[" + "[]," * 9_000_000 + "1]",
    "a long number": "1" * 1_000_000,
    "no JSON": "{'a': 1}",
}


def refused_soon(parse, text):
    start = time.monotonic()
    with pytest.raises(InputError) as error:
        parse(text, "theirs")
    assert time.monotonic() - start < 3, "a second, and some for a busy machine"
    assert str(error.value).startswith("theirs: ") and "\n" not in str(error.value) and error.value.hint


@pytest.mark.parametrize("name", YAML)
def test_yaml_beyond_a_limit_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused_soon(parse_yaml, YAML[name])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", JSON)
def test_json_beyond_a_limit_is_refused(name):
    refused_soon(parse_json, JSON[name])


def test_ordinary_text_is_read():
    assert parse_yaml("a: &b [1, 2.5, yes]\nc: *b\n") == {"a": [1, 2.5, True], "c": [1, 2.5, True]}
    assert parse_json('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}


def test_files_that_are_no_text(tmp_path):
    file = tmp_path / "a.json"
    with pytest.raises(InputError, match="no such file"):
        read_json(file)
    with pytest.raises(InputError, match="folder"):
        read_json(tmp_path)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_json(file)
    file.write_bytes(b" " * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(InputError, match="larger than 4 MiB"):
        read_config(file)
