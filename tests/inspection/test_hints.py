"""Whoever meets an error about data is told what to do: every ``InputError`` here has a hint."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "monai_transfer"
FILES = [path for part in ("manifest", "inspection", "data/readers") for path in sorted((ROOT / part).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_error_has_a_hint(path):
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError"
    ]
    bare = [node.lineno for node in calls if not any(key.arg == "hint" for key in node.keywords)]
    assert bare == []
