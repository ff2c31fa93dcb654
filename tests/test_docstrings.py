"""Every example in a docstring runs and prints what stands under it, and what a user meets first has one."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import logging
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "monai_transfer"
WITH_EXAMPLES = [
    ".".join(("monai_transfer", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
# packages in which every public class needs an example, or a reason
TAUGHT = ["localization", "losses", "methods", "metrics", "networks", "pretraining", "strategies", "tasks", "testtime"]
SHARE = 0.6
"""Of all public classes, those that have an example; may only rise."""
SHARE_OF_FUNCTIONS = 0.24
"""The same of all public functions."""
WITHOUT = {
    "ParamGroup": "a dictionary that optimizers take",
    "ScanAdaptedNetwork": "made by `DgTta.wrap`",
    "AdaptingNetwork": "made by `Tent.wrap`",
    "NoCut": "why there is none",
}


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_print_what_stands_under_them(name):
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    try:
        failed, tried = doctest.testmod(module, optionflags=flags, extraglobs={"__name__": "__doctest__"})
    finally:
        logging.disable(logging.NOTSET)  # an example may have silenced the log
    assert tried and not failed


@functools.cache
def parsed(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body


def public(path: Path, kind: type) -> list[ast.ClassDef]:
    return [node for node in parsed(path) if isinstance(node, kind) and not node.name.startswith("_")]


def test_most_public_classes_have_an_example():
    nodes = [node for path in ROOT.rglob("*.py") for node in public(path, ast.ClassDef)]
    share = sum(">>> " in (ast.get_docstring(node) or "") for node in nodes) / len(nodes)
    assert len(nodes) > 300 and share >= SHARE


def test_public_functions_with_an_example_do_not_become_fewer():
    nodes = [node for path in ROOT.rglob("*.py") for node in public(path, ast.FunctionDef)]
    share = sum(">>> " in (ast.get_docstring(node) or "") for node in nodes) / len(nodes)
    assert len(nodes) > 800 and share >= SHARE_OF_FUNCTIONS


@pytest.mark.parametrize("package", TAUGHT)
def test_what_a_user_meets_first_has_an_example(package):
    nodes = [node for path in (ROOT / package).rglob("*.py") for node in public(path, ast.ClassDef)]
    assert nodes
    lacking = [node.name for node in nodes if ">>> " not in (ast.get_docstring(node) or "")]
    assert sorted(set(lacking) - set(WITHOUT)) == []
