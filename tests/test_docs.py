"""The documents name only files that are there, and the README's Python imports work."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_named_files_exist(path):
    text = path.read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (path.parent / link).exists()] == []
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_0-9]+\.py)`", text))
    known = {str(p.relative_to(ROOT)) for p in ROOT.rglob("*.py") if ".venv" not in p.parts}
    known |= {name.removeprefix("monai_transfer/") for name in known}
    assert sorted(named - known) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_no_unfinished_words_and_no_machine_paths(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(TODO|FIXME|TBD)\b|(?<![\w.$}])/(?:home|root|work|tmp)/", text)


def test_readme_imports():
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL))
    imports = [line for line in code.splitlines() if re.match(r"from monai_transfer\S* import", line)]
    assert imports
    for line in imports:
        exec(line, {})


def test_readme_commands_exist():
    from typer.main import get_command

    from monai_transfer.cli import app

    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"^\| `([a-z]+)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert named == commands


FREE = ("run", "study")
"""Commands that take any id of the bundle's configs as an option."""


@pytest.fixture(scope="module")
def options():
    """Options by command."""
    import typer

    from monai_transfer.cli import COMMANDS

    found = {}
    for name, home in COMMANDS.items():
        app = typer.Typer()
        app.command()(getattr(importlib.import_module(home.module), name))
        found[name] = {
            word for each in typer.main.get_command(app).params for word in (*each.opts, *each.secondary_opts)
        }
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_commands_and_options_exist(path, options):
    text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
    lines = re.findall(r"^ {4,}monai-transfer (\w+)(.*)$|`monai-transfer (\w+)([^`]*)`", text, re.MULTILINE)
    for command, words in [(a or c, b or d) for a, b, c, d in lines]:
        assert command in options, command
        named = set(re.findall(r"(?<=\s)--?[a-z][\w-]*", words.partition("#")[0]))
        assert command in FREE or named <= options[command], (command, sorted(named - options[command]))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_scripts_that_are_shown_exist(path):
    for line in re.findall(r"^ {4,}python (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        words = line.split()
        place = ROOT / (words[1].replace(".", "/") if words[0] == "-m" else words[0])
        known = words[0] == "-m" and words[1].startswith("monai.")
        assert known or place.is_dir() or place.with_suffix(".py").is_file(), line
