"""Folders that name their labels differently, under one numbering: classes by name, and who looked for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.manifest.layouts.base import FolderContents, count
from monai_transfer.manifest.masks import mask_target, renumber
from monai_transfer.manifest.options import Progress

__all__ = ["join_labels"]


def join_labels(
    founds: Sequence[FolderContents],
    case_names: Sequence[Sequence[str]],
    folder: Path,
    progress: Progress,
    notes: list[str],
) -> dict[str, Any]:
    """The labels of folders that each say what their masks hold; masks whose numbers must change are written anew.

    A class that one folder names and another does not was not looked for in the other.

    Args:
        founds: what was read, each with ``labels``.
        case_names: the names of each folder's cases.
        folder: where masks with new numbers go.
        progress: shows how far that is.
        notes: receives what was assumed.

    Returns:
        ``names, values, regions, regions_class_order, ignore, annotated`` of the whole.

    Raises:
        InputError: two folders build a region of one name from different classes.
    """
    first = founds[0]
    if all(_said(found) == _said(first) for found in founds):
        return {
            "names": dict(first.labels),
            "values": dict(first.label_values),
            "regions": dict(first.regions),
            "regions_class_order": first.regions_class_order,
            "ignore": list(first.ignore),
        }
    names = list(dict.fromkeys(name for found in founds for _, name in sorted(found.labels.items())))
    background = first.labels.get(0, "background")
    names = [background, *(name for name in names if name != background and name.lower() != background.lower())]
    numbers = {name.lower(): number for number, name in enumerate(names)}
    ignore = [len(names)] if any(found.ignore for found in founds) else []
    regions: dict[str, list[int]] = {}
    jobs: list[tuple[Any, dict[int, int], Path]] = []
    for found, case_list in zip(founds, case_names, strict=True):
        table = {v: numbers[name.lower()] for n, name in found.labels.items() for v in found.label_values.get(n, [n])}
        table |= dict.fromkeys(found.ignore, ignore[0] if ignore else 0)
        for name, values in found.regions.items():
            new = sorted({table[value] for value in values})
            if regions.setdefault(name, new) != new:
                hint = "rename one of the two"
                raise InputError(f"the region {name!r} is made of other classes in another folder", hint=hint)
        if any(value != number for value, number in table.items()):
            for case, case_name in zip(found.cases, case_list, strict=True):
                if isinstance(case.label, Path):
                    jobs.append((case, table, mask_target(case.label, folder / case_name)))
    for case, table, target in progress(jobs, "Writing masks with common numbers") if jobs else ():
        renumber(case.label, table, target)
        case.label = target
    if jobs:
        notes.append(f"{count(len(jobs), 'mask')} written with the common numbers to {folder}")
    return {
        "names": dict(enumerate(names)),
        "regions": regions,
        "ignore": ignore,
        "annotated": _annotate(founds, names[1:], regions, notes),
    }


def _said(found: FolderContents) -> tuple[Any, ...]:
    return found.labels, found.label_values, found.regions, found.regions_class_order, found.ignore


def _annotate(
    founds: Sequence[FolderContents], names: Sequence[str], regions: dict[str, list[int]], notes: list[str]
) -> dict[str, list[str]]:
    """By site the classes that its folder names; by case where a site stands in folders that name different ones."""
    annotated: dict[str, list[str]] = {}
    sites = [{str(case.site) for case in found.cases if case.label is not None} for found in founds]
    for i, found in enumerate(founds):
        known = {name.lower() for name in found.labels.values()}
        told = [name for name in names if name.lower() in known]
        if len(told) == len(names):
            continue
        for site in sorted(sites[i]):
            shared = any(site in other for j, other in enumerate(sites) if j != i)
            if not shared:
                annotated[site] = found.annotated.get(site, told)
            else:
                for case in found.cases:
                    if str(case.site) == site and case.annotated is None:
                        case.annotated = list(found.annotated.get(site, told))
            notes.append(f"{site}: only {', '.join(told) or 'nothing'} was looked for (its own labels)")
    return annotated
