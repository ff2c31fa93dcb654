"""``LabelKind``: what stands as the label of one case in a manifest: a mask, a class, a number.

Tasks share these kinds, so a new task on masks or classes writes nothing about manifests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_transfer.errors import closest

__all__ = ["CLASS", "MASK", "NONE", "NUMBER", "LabelKind"]

Fault = tuple[str, str]


@dataclass(frozen=True)
class LabelKind:
    """How the label of one case is written and what may stand there; ``null`` (no label) always may.

    Args:
        name: ``mask``, ``class``, ``number`` or ``none``.
        is_path: the label is a file, and its path is relative to the manifest.
        is_class: the label is one of the manifest's classes, so cases can be balanced by it.
        is_number: the label is a quantity.
        fault: ``fault(label, names)`` says what is wrong with a label as it stands in JSON, given the class numbers by
            name: a clause and a hint; None where it is right.
        read: ``read(label, names)`` is the label as a :class:`~monai_transfer.manifest.Manifest` holds it (paths are
            made absolute there).
        strata: ``strata(labels)`` gives, for each case, what splits keep balanced.

    >>> NUMBER.read("3.5", {}), CLASS.read("sick", {"well": 0, "sick": 1})
    (3.5, 1)
    >>> CLASS.fault("sik", {"well": 0, "sick": 1})
    ("label 'sik' is no class of this manifest", "did you mean 'sick'?")
    """

    name: str
    is_path: bool
    is_class: bool
    is_number: bool
    fault: Callable[[Any, Mapping[str, int]], Fault | None]
    read: Callable[[Any, Mapping[str, int]], Any]
    strata: Callable[[Sequence[Any]], list[Any]]


def _present(labels: Sequence[Any]) -> list[Any]:
    return [label is not None for label in labels]


def _mask_fault(label: Any, names: Mapping[str, int]) -> Fault | None:
    if isinstance(label, str) and label:
        return None
    return f"label {label!r} is not a path", "give the path of the mask or annotation, or null where there is none"


def _class_fault(label: Any, names: Mapping[str, int]) -> Fault | None:
    if isinstance(label, str) and label not in names:
        hint = closest(label, names)
        if label.isdecimal() and int(label) in names.values():
            hint = f"write the class number without quotes: {int(label)}"
        return f"label {label!r} is no class of this manifest", hint
    if not isinstance(label, str) and label not in names.values():
        return (
            f"label {label} is no class of this manifest",
            f"classes are 0 to {len(names) - 1}; a missing label is null",
        )
    return None


def _number_fault(label: Any, names: Mapping[str, int]) -> Fault | None:
    if isinstance(label, str) or not isinstance(label, int | float) or not math.isfinite(label):
        return f"label {label!r} is not a finite number", "write a number or null"
    return None


def _quarters(labels: Sequence[Any]) -> list[Any]:
    """Four bins of equal number."""
    values = [label for label in labels if label is not None]
    edges = np.quantile(np.array(values, dtype=float), [0.25, 0.5, 0.75]) if values else np.zeros(0)
    return [None if label is None else int(np.searchsorted(edges, label)) for label in labels]


MASK = LabelKind("mask", True, False, False, _mask_fault, lambda label, names: label, _present)
"""A file with a class for every voxel."""
CLASS = LabelKind(
    "class",
    False,
    True,
    False,
    _class_fault,
    lambda label, names: names[label] if isinstance(label, str) else int(label),
    lambda labels: list(labels),
)
"""One of the manifest's classes, by name or number."""
NUMBER = LabelKind("number", False, False, True, _number_fault, lambda label, names: float(label), _quarters)
"""A quantity."""
NONE = LabelKind(
    "none",
    False,
    False,
    False,
    lambda label, names: None,
    lambda label, names: None,
    lambda labels: [None] * len(labels),
)
"""No label is read."""
