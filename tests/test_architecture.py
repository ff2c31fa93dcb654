"""Imports point one way, read from the source: who may know whom is ARCHITECTURE.md's table."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "monai_transfer"
MODULES = sorted(ROOT.rglob("*.py"))

# the longest prefix that fits decides; a module may import from its own floor and from those below
FLOORS = {
    "": 0,  # the package itself: names only, imported on use
    "arrays": 0,
    "errors": 0,
    "files": 0,
    "quiet": 0,
    "manifest": 1,
    "networks": 1,
    "localization": 1,
    "report.metrics": 1,
    "report.statistics": 1,
    "manifest.inspection": 2,  # looks into the files, so it knows the readers
    "data": 2,
    "weights": 2,
    "strategies": 2,
    "methods": 2,
    "pretraining": 2,
    "testtime": 2,
    "selection": 2,
    "engine": 3,
    "report": 4,
    "bundle": 5,
    "demo": 5,
    "cli": 5,
    "__main__": 5,
}
# the commands of lower packages are called by the command line and may look at a whole bundle, when they are called
COMMANDS = {"manifest.check_command", "manifest.command", "selection.command", "report.command", "bundle.command"}
ALONE = {"methods": ("networks", "errors", "files"), "strategies": ("networks", "errors", "files")}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> int:
    parts = module.split(".")
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in FLOORS:
            return FLOORS[".".join(parts[:n])]
    if module == "":
        return FLOORS[""]
    raise AssertionError(f"monai_transfer.{module} stands on no floor: add its package to ARCHITECTURE.md and here")


def imports_of(path: Path) -> set[str]:
    """Modules of ours that a file imports, anywhere in it, without those for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    package = ["monai_transfer", *name_of(path).split(".")]
    if path.name != "__init__.py":
        package = package[:-1]
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:  # `from package import module` names a module
                inner = ROOT.parent / Path(*module.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                found.add(f"{module}.{alias.name}" if is_module else module)
    return {name.removeprefix("monai_transfer").lstrip(".") for name in found if name.split(".")[0] == "monai_transfer"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_downwards(path):
    module = name_of(path)
    if module in COMMANDS:
        return
    upwards = {name for name in imports_of(path) if floor_of(name) > floor_of(module)}
    assert not upwards, f"monai_transfer.{module} (floor {floor_of(module)}) imports {sorted(upwards)} from above"


@pytest.mark.parametrize("package", sorted(ALONE))
def test_methods_and_strategies_know_neither_the_engine_nor_each_other(package):
    for path in (ROOT / package).rglob("*.py"):
        for name in imports_of(path):
            top = name.split(".")[0]
            own_base = name in (f"{package}.base", package)
            others = path.name == "__init__.py" and top == package
            assert top in ALONE[package] or own_base or others, f"{package}/{path.name} imports monai_transfer.{name}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is(path):
    assert (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").strip()


def test_every_floor_exists():
    for name in FLOORS:
        path = ROOT / Path(*name.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), name
