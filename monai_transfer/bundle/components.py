"""Strategies and methods by their short name or full path, as configs; an unknown one is refused at once."""

from __future__ import annotations

import difflib
from importlib import import_module
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Method
from monai_transfer.strategies.base import Strategy

__all__ = ["component"]


def component(kind: str, name: str) -> dict[str, Any]:
    """``coral`` or a full path as a config; refused here, not after the first hours of a run.

    Args:
        kind: ``methods`` or ``strategies``.
        name: a file's name in that package, or the full path of a class.

    Raises:
        InputError: there is no such class.
    """
    word = "method" if kind == "methods" else "strategy"
    if "." in name:
        module, _, attribute = name.rpartition(".")
        try:
            found = hasattr(import_module(module), attribute)
        except ImportError:
            found = False
        if not found:
            raise InputError(f"no {word} {name!r} can be imported", hint="give the full path of its class")
        return {"_target_": name}
    known = sorted(p.stem for p in (Path(__file__).parents[1] / kind).glob("*.py") if _class_of(kind, p.stem))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
        raise InputError(f"no {word} {name!r}", hint=hint)
    return {"_target_": f"monai_transfer.{kind}.{name}.{_camel(name)}"}


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _class_of(kind: str, name: str) -> bool:
    """Whether the file holds what a bundle can use: a strategy, or a method that gives a term."""
    if name.startswith("_") or name == "base":
        return False
    found = getattr(import_module(f"monai_transfer.{kind}.{name}"), _camel(name), None)
    base = Method if kind == "methods" else Strategy
    return isinstance(found, type) and issubclass(found, base)
