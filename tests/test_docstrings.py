"""Every example in a docstring runs and prints what stands under it, and what a user meets first has one."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import logging
from pathlib import Path
from types import FunctionType

import pytest

ROOT = Path(__file__).parents[1] / "monai_transfer"
WITH_EXAMPLES = [
    ".".join(("monai_transfer", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
NEEDS = {"monai_transfer.engine.lightning": "lightning"}
"""Modules whose examples want an extra."""
# packages in which every public class needs an example, or a reason
TAUGHT = [
    "data", "localization", "losses", "methods", "metrics", "networks", "pretraining", "strategies", "tasks",
    "testtime",
]  # fmt: skip
# packages in which every public class and function says what it takes and raises, and has an example
WHOLE = ["data", "losses", "methods", "metrics", "networks", "strategies", "testtime"]
SHARE = 0.72
"""Of all public classes, those that have an example; may only rise."""
SHARE_OF_FUNCTIONS = 0.43
"""The same of all public functions."""
WITHOUT = {
    "NoCut": "why there is none",
}


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_print_what_stands_under_them(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
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


def arguments(node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    """What one gives: of a function, of ``__init__``, or the fields of a dataclass."""
    maker = node
    if isinstance(node, ast.ClassDef):
        maker = next((part for part in node.body if getattr(part, "name", "") == "__init__"), None)
        if maker is None:
            is_dataclass = any("dataclass" in ast.unparse(one) for one in node.decorator_list)
            return [ast.unparse(part.target) for part in node.body if isinstance(part, ast.AnnAssign) and is_dataclass]
    given = maker.args
    return [one.arg for one in [*given.posonlyargs, *given.args, *given.kwonlyargs] if one.arg not in ("self", "cls")]


def raises_itself(node: ast.ClassDef | ast.FunctionDef) -> bool:
    """Whether it, or its ``__init__``, refuses input in its own lines."""
    maker = node
    if isinstance(node, ast.ClassDef):
        maker = next((part for part in node.body if getattr(part, "name", "") == "__init__"), None)
    raised = (one.exc for one in ast.walk(maker) if isinstance(one, ast.Raise)) if maker is not None else ()
    return any("InputError" in ast.unparse(one) for one in raised if one is not None)


@pytest.mark.parametrize("package", WHOLE)
def test_everything_of_the_rooms_one_works_in_is_told(package):
    faults = []
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.stem.startswith("_") and path.stem != "__init__":
            continue
        for node in [*public(path, ast.ClassDef), *public(path, ast.FunctionDef)]:
            maker = next((p for p in node.body if isinstance(p, ast.FunctionDef) and p.name == "__init__"), node)
            told = (ast.get_docstring(node) or "") + (ast.get_docstring(maker) or "")
            wanted = {">>> ": True, "Raises:": raises_itself(node), "Args:": bool(arguments(node))}
            told = told.replace("Attributes:", "Args:")
            faults += [
                f"{path.name}: {node.name} has no {mark}" for mark, due in wanted.items() if due and mark not in told
            ]
    assert faults == []


def offered() -> dict[str, object]:
    """What the packages offer by name: ``__all__`` of each, and their lazy names."""
    found = {}
    for path in sorted(ROOT.rglob("__init__.py")):
        name = ".".join(("monai_transfer", *path.parent.relative_to(ROOT).parts))
        module = importlib.import_module(name)
        names = [*getattr(module, "__all__", ()), *getattr(module, "_HOMES", ())]
        if not names:
            names = [one for one in dir(module) if one[0].isupper()]
        for thing in (getattr(module, one) for one in names):
            if isinstance(thing, (type, FunctionType)) and thing.__module__.startswith("monai_transfer"):
                found[f"{thing.__module__}.{thing.__qualname__}"] = thing
    return found


def test_what_the_packages_offer_by_name_has_an_example():
    things = offered()
    assert len(things) > 140
    assert [name for name, thing in things.items() if ">>> " not in (thing.__doc__ or "")] == []
