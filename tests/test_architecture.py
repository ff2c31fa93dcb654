"""Imports point one way, read from the source: who may know whom is ARCHITECTURE.md's table.

Followed are all imports, wherever they stand: at the top, in a function, for type checkers, by ``import_module`` and by
a dotted path in a string. No package imports one above it, and no module takes part in a circle.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "monai_transfer"
MODULES = {
    ".".join(parts[:-1] if parts[-1] == "__init__" else parts): path
    for path in sorted(ROOT.rglob("*.py"))
    for parts in [path.relative_to(ROOT).with_suffix("").parts]
}

# from the ground up; a package may import from those below it (and from itself), also within a floor
FLOORS = [
    (
        "names, files, errors",
        [
            "_moved",
            "arm_names",
            "arrays",
            "discovery",
            "errors",
            "config_text",
            "component_table",
            "content_kinds",
            "stopping",
            "files",
            "free_memory",
            "library_logging",
            "options",
            "safe_parse",
            "tables",
            "runs",
        ],
    ),
    ("networks, metrics, tasks, model of data", ["networks", "localization", "losses", "metrics", "tasks", "manifest"]),
    (
        "transforms, weights, strategies, methods",
        ["data", "bundle_reader", "weights", "nnunet", "strategies", "methods", "pretraining", "testtime"],
    ),
    ("looking at data and sources", ["inspection", "selection"]),
    ("training", ["engine", "testing"]),
    ("scores and comparison", ["evaluation", "report"]),
    ("bundles and what is done with them", ["bundle", "predict", "study"]),
    ("commands", ["demo_settings", "demo", "demo_command", "cli", "__main__"]),
]
ORDER = [package for _, packages in FLOORS for package in packages]
ALONE = {"methods": ("networks", "tasks", "errors", "files"), "strategies": ("networks", "errors", "files")}
# the package's own names are found when they are asked for, and so are those of `inspection` and `report`
LAZY = {"": "names only, imported on use", "_moved": "a table of old and new names"}


def package_of(module: str) -> str:
    return module.split(".")[0]


def existing(name: str) -> str | None:
    """The longest part of a dotted name below ``monai_transfer`` that is a module of ours."""
    parts = name.split(".")
    if parts[0] != "monai_transfer":
        return None
    for n in range(len(parts), 1, -1):
        if ".".join(parts[1:n]) in MODULES:
            return ".".join(parts[1:n])
    return ""


@cache
def imports_of(module: str) -> frozenset[str]:
    """Modules of ours that a module imports or names by a dotted path, anywhere in it."""
    path = MODULES[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = ["monai_transfer", *(module.split(".") if module else [])]
    package = own if path.name == "__init__.py" else own[:-1]
    named: set[str] = set()
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            named |= {f"{source}.{alias.name}" for alias in node.names}
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in documentation
            # a whole string that is a path of ours: import_module, a table of places, a config's `_target_`
            and re.fullmatch(r"monai_transfer(\.\w+)+", node.value)
            and not f"{'.'.join(own)}.".startswith(f"{node.value}.")  # its own package, named in a text
        ):
            named.add(node.value)
    found = {existing(name) for name in named} - {None}
    return frozenset(name for name in found if name is not None and name != module)


def rank(module: str) -> int:
    package = package_of(module)
    assert package in ORDER, f"monai_transfer.{module} stands on no floor: add its package to ARCHITECTURE.md and here"
    return ORDER.index(package)


@pytest.mark.parametrize("module", [m for m in MODULES if m not in LAZY], ids=str)
def test_imports_point_downwards(module):
    upwards = {name for name in imports_of(module) if name and rank(name) > rank(module)}
    assert not upwards, f"monai_transfer.{module} imports {sorted(upwards)} from above"


def test_no_module_takes_part_in_a_circle():
    # a package's `__init__` that only names its modules for lazy look-up is no import of them
    edges = {m: {n for n in imports_of(m) if n not in LAZY} for m in MODULES if m not in LAZY}
    lazy_packages = {m for m, p in MODULES.items() if p.name == "__init__.py" and "def __getattr__" in p.read_text()}
    for package in lazy_packages & set(edges):
        edges[package] = set()
    state: dict[str, int] = {}
    circles: list[list[str]] = []

    def visit(module: str, trail: list[str]) -> None:
        state[module] = 1
        for name in sorted(edges[module]):
            if state.get(name) == 1:
                circles.append([*trail[trail.index(name) :], name] if name in trail else [module, name])
            elif name not in state:
                visit(name, [*trail, name])
        state[module] = 2

    for module in sorted(edges):
        if module not in state:
            visit(module, [module])
    assert circles == []


@pytest.mark.parametrize("package", sorted(ALONE))
def test_methods_and_strategies_know_neither_the_engine_nor_each_other(package):
    for module, path in MODULES.items():
        if package_of(module) != package or path.name == "__init__.py":
            continue
        for name in imports_of(module) - {""}:
            own_base = name in (f"{package}.base", package)
            assert package_of(name) in ALONE[package] or own_base, f"{module} imports monai_transfer.{name}"


@pytest.mark.parametrize("module", list(MODULES), ids=str)
def test_every_module_says_what_it_is(module):
    assert (ast.get_docstring(ast.parse(MODULES[module].read_text(encoding="utf-8"))) or "").strip()


def test_every_package_of_the_table_exists_and_is_described():
    assert {package_of(m) for m in MODULES} - {""} == set(ORDER)
    page = (ROOT.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert [package for package in ORDER if f"`{package}" not in page] == []


def test_the_test_sees_every_kind_of_import():
    assert "engine.adapt" in imports_of("bundle.spec") | imports_of("study.method_arms"), "a path in a string"
    assert "report.run" in imports_of("report.html"), "an import for type checkers"
    assert "study.run_arms" in imports_of("study.command"), "an import in a function"
