"""The values of masks as the manifest declares them, and what was counted of them by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from monai_transfer.inspection.facts import CaseReport
from monai_transfer.manifest.model import Case, Manifest

__all__ = ["class_counts", "classes_of", "declared_values"]


def declared_values(manifest: Manifest) -> dict[int, str]:
    """What each value in a mask of this manifest means, by value: a class, or ``ignored``."""
    mapping = manifest.label_mapping
    values = {value: name for name, group in mapping.classes.items() for value in group}
    return dict(sorted((values | dict.fromkeys(mapping.ignore, "ignored")).items()))


def class_counts(manifest: Manifest, counts: Mapping[Any, int]) -> Counter[str]:
    """Voxels by class name, from voxels by value; ignored and undeclared values are left out."""
    mapping = manifest.label_mapping
    of = {value: name for name, group in mapping.classes.items() for value in group}
    result: Counter[str] = Counter()
    for value, n in counts.items():
        if int(value) in of:
            result[of[int(value)]] += int(n)
    return result


def classes_of(manifest: Manifest, case: Case, result: CaseReport) -> set[str]:
    """Names of the classes (or findings) that a labelled case shows; ``result`` is what ``inspect_case`` found."""
    if isinstance(case.label, dict):
        return {name for name, value in case.label.items() if value == 1}
    if isinstance(case.label, str):
        return set(class_counts(manifest, result.label_values))
    return {manifest.labels[str(case.label)]}
