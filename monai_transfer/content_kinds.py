"""Kinds of the values in a file of others: what reads a field relies on its kind; another is left out or refused.

A kind is a type (``int`` takes no ``bool``; ``float`` takes whole numbers, and neither NaN nor infinity), a tuple of
kinds (any of them), a list of one kind (a list of such values), or a dictionary (a mapping with these fields, ``"*"``
standing for all others). Fields that are not named may hold anything. A field may be ``None``, "not said"; an item of a
list may not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError

__all__ = ["LARGEST_INTEGER", "Kind", "odd_fields", "refuse_odd_fields", "without_odd_fields"]

Kind = Any
"""A type, a tuple of kinds, a list of one kind, or a dictionary of kinds by field."""

LARGEST_INTEGER = 1 << 53
"""Counts and sizes: beyond it a float no longer holds each whole number."""


def odd_fields(content: Any, kind: Kind, where: str = "") -> Iterator[tuple[str, Any]]:
    """Place (``a::b``) and value of what is of another kind, the outermost of each branch.

    >>> list(odd_fields({"task": "segmentation", "shape": [4, "x"]}, {"task": str, "shape": [int]}))
    [('shape::1', 'x')]
    """
    if content is None:
        return
    if isinstance(kind, Mapping) and isinstance(content, dict):
        for name, value in content.items():
            inner = kind.get(name, kind.get("*"))
            if inner is not None:
                yield from odd_fields(value, inner, f"{where}::{name}" if where else str(name))
    elif isinstance(kind, list) and isinstance(content, list):
        for n, value in enumerate(content):
            place = f"{where}::{n}" if where else str(n)
            yield from [(place, value)] if value is None else odd_fields(value, kind[0], place)
    elif not _fits(content, kind):
        yield where, content


def without_odd_fields(content: Any, kind: Kind) -> Any:
    """The content without the fields that hold another kind; a list with one odd value is left out as a whole.

    >>> without_odd_fields({"dims": "x", "spacing": [1.0, None], "name": "theirs"}, {"dims": int, "spacing": [float]})
    {'name': 'theirs'}
    """
    if not isinstance(kind, Mapping) or not isinstance(content, dict):
        return content
    kept = {}
    for name, value in content.items():
        inner = kind.get(name, kind.get("*"))
        if isinstance(inner, Mapping) and isinstance(value, dict):
            value = without_odd_fields(value, inner)
        elif inner is not None and next(odd_fields(value, inner), None) is not None:
            continue
        kept[name] = value
    return kept


def refuse_odd_fields(content: Any, kind: Kind, path: str | Path, hint: str) -> None:
    """Raise an error about the first field of another kind.

    Args:
        content: of the file.
        kind: what it should hold.
        path: the file.
        hint: what to do.

    Raises:
        InputError: names the field and what it holds.

    >>> refuse_odd_fields({"seed": "x"}, {"seed": int}, "run.json", "leave the run out")
    Traceback (most recent call last):
    monai_transfer.errors.InputError: run.json: seed is 'x', which does not belong there; leave the run out
    """
    fields = odd_fields(content, kind) if content is not None else iter([("", None)])
    for where, value in fields:
        told = str(value)
        told = f"{told[:40]}..." if len(told) > 40 else told
        raise InputError(f"{where or 'its content'} is {told!r}, which does not belong there", path=path, hint=hint)


def _fits(value: Any, kind: Kind) -> bool:
    if isinstance(kind, tuple):
        return any(next(odd_fields(value, each), None) is None for each in kind)
    if isinstance(kind, (list, Mapping)):
        return False
    if kind is bool:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return kind is object
    if kind is int:
        return isinstance(value, int) and abs(value) <= LARGEST_INTEGER
    if kind is float:
        return isinstance(value, (int, float)) and abs(value) < math.inf
    return isinstance(value, kind)
