"""Strategies and methods by their short name or full path, as configs; an unknown one is refused at once."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any

from monai_transfer.discovery import class_name, classes_in
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
    known = classes_in(kind, Method if kind == "methods" else Strategy)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
        raise InputError(f"no {word} {name!r}", hint=hint)
    return {"_target_": f"monai_transfer.{kind}.{name}.{class_name(name)}"}
