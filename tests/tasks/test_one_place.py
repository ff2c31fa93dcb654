"""No file outside ``tasks/`` decides by a task's name: what differs from task to task is asked of the ``Task``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import monai_transfer
from monai_transfer.manifest.checks import schema
from monai_transfer.tasks import TASKS

ROOT = Path(monai_transfer.__file__).parent
PLACES = [ROOT, ROOT.parent / "bundles"]

EXCEPTIONS = {
    "bundle/source_head.py": "`regression` is there the word for outputs without an activation",
    "weights/families.py": "`classification` is there an argument of MONAI's ViT",
    "manifest/structures.py": "`regions` is there a way to write structures that overlap",
    "networks/mil.py": "lies below the tasks, and declares that it gives one class for every image",
}
"""Files in which such a name stands, each with its reason."""

KEYS = set(schema()["properties"]) & set(TASKS)
"""Names of tasks that are also keys of a manifest."""


def names_in(node: ast.AST) -> set[str]:
    """Names of tasks among the strings of a comparison's side, a tuple, a list or a set."""
    parts = node.elts if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else [node]
    return {part.value for part in parts if isinstance(part, ast.Constant) and part.value in TASKS}


def decisions(source: str) -> list[str]:
    """Where code compares with a task's name, lists several, or looks something up by one."""
    found = []
    tree = ast.parse(source)
    reasons = {  # why a method is not for a task: text beside its declaration
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        and [t.id for t in getattr(node, "targets", [getattr(node, "target", None)]) if isinstance(t, ast.Name)]
        == ["limits"]
    }
    for node in ast.walk(tree):
        named: set[str] = set()
        if isinstance(node, ast.Compare):
            key = isinstance(node.ops[0], (ast.In, ast.NotIn)) and isinstance(node.left, ast.Constant)
            named = set().union(*(names_in(side) for side in (node.left, *node.comparators))) - (KEYS if key else set())
        elif isinstance(node, ast.MatchValue):
            named = names_in(node.value)
        elif isinstance(node, (ast.Tuple, ast.List, ast.Set)) and node.elts:
            named = names_in(node)
            named = named if len(named) >= min(2, len(node.elts)) else set()  # one of many words may mean anything
        elif isinstance(node, ast.Dict) and id(node) not in reasons:
            named = set().union(*(names_in(key) for key in node.keys if key is not None)) - KEYS
        elif isinstance(node, ast.Subscript):
            named = names_in(node.slice) - KEYS
        if named:
            found.append(f"line {node.lineno}: {', '.join(sorted(named))}")
    return found


FILES = [p for place in PLACES for p in sorted(place.rglob("*.py")) if "tasks" not in p.relative_to(place).parts[:1]]


def test_no_file_decides_by_the_name_of_a_task():
    wrong = {}
    for path in FILES:
        found = decisions(path.read_text(encoding="utf-8"))
        name = path.relative_to(ROOT.parent).as_posix()
        if found and name.removeprefix("monai_transfer/") not in EXCEPTIONS:
            wrong[name] = found
    assert len(FILES) > 300 and wrong == {}


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_every_exception_is_needed(name):
    assert decisions((ROOT / name).read_text(encoding="utf-8")), f"{name} names no task any more: take it off the list"


@pytest.mark.parametrize(
    "source",
    [
        'if task == "segmentation": pass',
        'if task.name != "regression": pass',
        'masks = task in ("segmentation", "localization")',
        'kind = {"classification": 1}.get(task, 2)',
        'x = table["multilabel"]',
        'match task:\n    case "multilabel": pass',
        'tasks = ("classification",)',
    ],
)
def test_it_sees_each_kind_of_decision(source):
    assert decisions(source)


def test_it_lets_names_and_reasons_pass():
    assert decisions('found.texts["task"] = "segmentation"\nlimits = {"regression": "it has no classes"}') == []
