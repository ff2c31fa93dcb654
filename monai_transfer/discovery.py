"""One file, one class: what a package of methods or strategies holds is read from its folder; there is no registry.

A file's class bears its name in CamelCase (``co_tuning.py``: ``CoTuning``). Names are found without importing anything,
since torch is heavy; a class is imported when it is asked for.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["class_name", "classes_in", "file_names", "lazy_class"]


def class_name(stem: str) -> str:
    """The class that a file should hold.

    >>> class_name("co_tuning")
    'CoTuning'
    """
    return "".join(part.capitalize() for part in stem.split("_"))


@cache
def file_names(package: str) -> tuple[str, ...]:
    """Files of a package of ours (``"methods"``) that hold a class of their name, sorted.

    >>> "dann" in file_names("methods"), "base" in file_names("methods")
    (True, False)
    """
    found = []
    for path in sorted((Path(__file__).parent / package).glob("[a-z]*.py")):
        mark = rf"^class {class_name(path.stem)}\b"
        if path.stem != "base" and re.search(mark, path.read_text(encoding="utf-8"), re.MULTILINE):
            found.append(path.stem)
    return tuple(found)


def classes_in(package: str, base: type | None = None) -> dict[str, Any]:
    """File name to class, imported; of ``base`` alone where it is given."""
    found = {
        name: getattr(import_module(f"{__package__}.{package}.{name}"), class_name(name))
        for name in file_names(package)
    }
    return {name: kind for name, kind in found.items() if base is None or issubclass(kind, base)}


def lazy_class(package: str, name: str, base: tuple[str, ...] = ()) -> Any:
    """For a package's ``__getattr__``: the class ``name``, of its file, or one of ``base`` from ``base.py``.

    Raises:
        AttributeError: there is none.
    """
    if name in base:
        return getattr(import_module(f"{__package__}.{package}.base"), name)
    for stem in file_names(package):
        if class_name(stem) == name:
            return getattr(import_module(f"{__package__}.{package}.{stem}"), name)
    raise AttributeError(f"module '{__package__}.{package}' has no attribute {name!r}")
