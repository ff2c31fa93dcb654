"""What is written is read back: the config by MONAI's reader, the comments from the text."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from monai.bundle import ConfigParser

from bundles.packaged import packaged_specs
from monai_transfer.bundle.configs.emit import comments, note, to_yaml, uncommented
from monai_transfer.bundle.configs.headers import header
from monai_transfer.bundle.write import configs
from monai_transfer.config_text import expr, ref

NASTY = [
    "$import os",
    "%a",
    "@a",
    "lesion #2",
    "#",
    "+more",
    'it\'s "quoted" \\ and: {x}',
    "line\nbreak\ttab\x7f\x85",
    "L\u00e4sion \U0001f9e0",
    "null",
    "- a: b",
    " padded ",
    "",
]

ROOT = Path(__file__).parents[3]
SPECS = {spec.name: spec for spec in packaged_specs()}
CONFIGS = [(name, kind) for name, spec in SPECS.items() for kind in configs(spec)]


def read(text: str, tmp_path) -> dict:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="ascii")
    return ConfigParser.load_config_file(str(path))


def read_comments(text: str) -> dict[str, str]:
    """The comment of each root key: behind its first line, or in the lines above it."""
    found, above = {}, []
    for line in text.splitlines():
        if line.startswith("# ----"):
            above = []
        elif line.startswith("#"):
            above.append(line[2:])
        elif line and line[0] not in " -":
            behind = re.search(r"  # (.*)$", line)
            key = re.match(r"'?([+\w:]+?)'?:(?: |$)", line)[1]
            found[key] = behind[1] if behind else "\n".join(above)
            above = []
        elif not line:
            above = []
    return found


@pytest.mark.parametrize(("name", "kind"), CONFIGS)
def test_config_and_comments_are_read_back(name, kind, tmp_path):
    config = configs(SPECS[name])[kind]
    text = to_yaml(config, header(SPECS[name], kind))
    assert read(text, tmp_path) == uncommented(config)
    said, got = comments(config), read_comments(text)
    assert {key: got[key].split("\n")[-1] for key in said} == {
        key: value.split("\n")[-1] for key, value in said.items()
    }
    silent = [key for key in config if key not in said]
    assert set(silent) <= {"train"}, "every key is explained; training by its parts"


@pytest.mark.parametrize(("name", "kind"), CONFIGS)
def test_an_expression_calls_one_function_at_most(name, kind):
    def expressions(node):
        if isinstance(node, str) and node.startswith("$") and "import " not in node:
            yield node[1:]
        for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from expressions(item)

    for text in expressions(uncommented(configs(SPECS[name])[kind])):
        tree = ast.parse(re.sub(r"@(\w+(#\w+)*)", "ref", text))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert len(calls) <= 1, f"a function of its own is read more easily: {text}"


@pytest.mark.parametrize("text", NASTY)
def test_any_name_is_written_and_read(text, tmp_path):
    config = {
        "name": note(text, text),
        "names": [text, {"_target_": "builtins.dict", "name": text, "more": [[text]]}],
        "long": ["x" * 100, text],
        "keys": {f"a{text}": 1} if text else {},
        "lr": 1e-5,
        "sum": expr("1 + 1"),
        "same": ref("name"),
    }
    written = to_yaml(config, [text, f"two\n{text}"])
    assert read(written, tmp_path) == uncommented(config)
    parser = ConfigParser(read(written, tmp_path))
    assert parser.get_parsed_content("same") == text == parser.get_parsed_content("names")[1]["name"]
    assert parser.get_parsed_content("sum") == 2 and parser.get_parsed_content("lr") == 1e-5


def test_what_is_no_value_is_refused():
    with pytest.raises(TypeError, match="no value for a config: float64|ndarray"):
        to_yaml({"a": np.zeros(2)}, [])


@pytest.mark.parametrize(("name", "kind"), CONFIGS)
def test_imports_name_modules_in_full(name, kind):
    """MONAI reads ``from package import module`` as an attribute, which is there only once something imported it."""
    for line in uncommented(configs(SPECS[name])[kind]).get("imports", []):
        (node,) = ast.parse(line[1:]).body
        if isinstance(node, ast.ImportFrom):
            assert not (ROOT / f"{node.module}.{node.names[0].name}".replace(".", "/")).with_suffix(".py").exists()
            assert node.module.startswith("monai_transfer."), "import x.y as y"
