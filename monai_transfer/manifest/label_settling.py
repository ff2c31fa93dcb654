"""One label mapping for all folders of a set: what each layout or the user says, and what the masks hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.manifest.classes import given_names, number_classes, regression_values, settle_findings
from monai_transfer.manifest.finding_columns import split_lists
from monai_transfer.manifest.joining import join_labels
from monai_transfer.manifest.layouts.base import FolderContents
from monai_transfer.manifest.masks import label_names, mask_values
from monai_transfer.manifest.options import LabelOptions, Names, Progress
from monai_transfer.tasks import Task

__all__ = ["Labels", "settle_labels"]

_SAMPLE = 20
"""So many masks are looked into where their values are told."""


@dataclass
class Labels:
    """What a manifest says of its labels.

    Attributes:
        names: class names by number.
        values: the mask values of a class by its number, where they are not just that number.
        regions, regions_class_order, ignore, annotated, multi_label: as in a manifest.
    """

    names: dict[int, str] = field(default_factory=dict)
    values: dict[int, list[int]] = field(default_factory=dict)
    regions: dict[str, list[int]] = field(default_factory=dict)
    regions_class_order: list[int] | None = None
    ignore: list[int] = field(default_factory=list)
    annotated: dict[str, list[str]] = field(default_factory=dict)
    multi_label: bool = False

    def of_manifest(self) -> dict[str, Any]:
        """The arguments of a ``Manifest``."""
        return {
            "labels": {str(number): self.names[number] for number in sorted(self.names)},
            "label_values": {str(number): list(values) for number, values in self.values.items()},
            "regions": self.regions,
            "regions_class_order": self.regions_class_order,
            "ignore": self.ignore,
            "annotated": self.annotated,
            "multi_label": self.multi_label,
        }


def settle_labels(
    founds: Sequence[FolderContents],
    case_names: Sequence[Sequence[str]],
    task: Task,
    options: LabelOptions,
    folder: Path,
    progress: Progress,
    notes: list[str],
) -> Labels:
    """The labels of all folders under one mapping; labels of cases are changed in place.

    Args:
        founds: what was read.
        case_names: the names of each folder's cases, for masks that have to be written.
        task: what is predicted.
        options: what the user says of labels.
        folder: where masks that have to be written go.
        progress: shows how far long work is.
        notes: receives what was assumed.

    Raises:
        InputError: names, values or classes do not fit.
    """
    if task.label.is_path:
        labels = _of_masks(founds, case_names, options, folder, progress, notes)
    elif task.label.is_class:
        listed = any(split_lists(found.cases) for found in founds)
        if listed or any(isinstance(case.label, dict) for found in founds for case in found.cases):
            labels = Labels(settle_findings(founds, options.labels, notes), multi_label=True)
        else:
            labels = Labels(number_classes(founds, options.labels, notes))
    else:
        labels = Labels()
        regression_values(founds)
    if options.regions is not None:
        labels.regions, labels.regions_class_order = {n: list(v) for n, v in options.regions.items()}, None
    told: dict[str, list[str]] = {}
    for found in founds:
        told |= found.annotated
    labels.annotated |= told | {site: list(names) for site, names in options.annotated.items()}
    return labels


def _of_masks(
    founds: Sequence[FolderContents],
    case_names: Sequence[Sequence[str]],
    options: LabelOptions,
    folder: Path,
    progress: Progress,
    notes: list[str],
) -> Labels:
    """Names of the mask values: the user's, the layouts', or stand-ins after a look into every mask."""
    ignore = [int(value) for value in options.ignore]
    masks = [case.label for found in founds for case in found.cases if isinstance(case.label, Path)]
    if any(found.drawn for found in founds):
        return _drawn(founds)
    if options.binarize:
        names = _numbered(options.labels, []) if options.labels is not None else {0: "background", 1: "foreground"}
        return Labels(names)
    if options.labels is not None:
        names = given_names(options.labels)
        held: set[int] = set()
        if not isinstance(options.labels, Mapping):  # a mere list names values in their order
            few = masks[:: max(1, len(masks) // _SAMPLE)]
            held = set().union(*(mask_values(mask) for mask in few)) - set(ignore)
            if held and max(held) >= max(2, len(names)):
                held = set().union(*(mask_values(m) for m in progress(masks, "Looking into masks"))) - set(ignore)
        return _grouped(_numbered(options.labels, sorted(held)), ignore, notes)
    told = [found for found in founds if found.labels]
    if told:
        if len(told) < len(founds):
            hint = "give one set of names for all with --labels"
            raise InputError("some folders name their labels and some do not", hint=hint)
        labels = Labels(**join_labels(founds, case_names, folder, progress, notes))
        labels.ignore = labels.ignore or ignore
        return labels
    if not masks:
        raise InputError("no mask to tell the labels by", hint="name them: --labels background,tumour")
    looked = {mask: mask_values(mask) - set(ignore) for mask in progress(masks, "Looking into masks")}
    names = label_names(looked)
    notes.append(f"labels have no names: called {_shown(names)}; name them with --labels")
    return Labels(names, ignore=ignore)


def _drawn(founds: Sequence[FolderContents]) -> Labels:
    """The numbering under which a layout drew its structures; it must be one for all folders."""
    first = founds[0]
    if any(not found.drawn or found.labels != first.labels or found.regions != first.regions for found in founds):
        hint = "build manifests one by one and merge them: monai-transfer manifest A.json B.json -o BOTH.json"
        raise InputError("structures are drawn differently in the folders", hint=hint)
    return Labels(dict(first.labels), regions=dict(first.regions))


def _numbered(given: Names, held: list[int]) -> dict[int, str]:
    """The user's names by mask value; ``held`` are the values that masks hold, which a mere list names in order."""
    names = given_names(given)
    if any(not isinstance(key, int) for key in names):
        raise InputError("--labels of masks go by number", hint="write 0=background,1=tumour or background,tumour")
    if len(names) == 1:  # the one class that is meant stands against a background
        names = {0: "background", 1: next(iter(names.values()))}
        if names[1].lower() == "background":
            raise InputError("--labels names the background only", hint="write background,tumour")
    if not isinstance(given, Mapping) and held and max(held) >= len(names):
        values = sorted({0, *held})
        if len(values) != len(names):
            shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
            hint = "name each: --labels 0=background,7=tumour; or --binarize makes foreground of all that is not 0"
            raise InputError(f"--labels gives {len(names)} names, and the masks hold {shown}", hint=hint)
        names = dict(zip(values, names.values(), strict=True))
    return dict(sorted(names.items()))


def _grouped(names: dict[int, str], ignore: list[int], notes: list[str]) -> Labels:
    """Values of one name as one class; its number is its first value."""
    groups: dict[str, list[int]] = {}
    for value, name in names.items():
        if value not in ignore:
            groups.setdefault(name, []).append(value)
    labels = Labels({values[0]: name for name, values in groups.items()}, ignore=ignore)
    labels.values = {values[0]: values for values in groups.values() if len(values) > 1}
    if list(labels.names) != list(range(len(labels.names))) or labels.values:
        shown = "; ".join(f"{', '.join(map(str, values))} = {name}" for name, values in groups.items())
        notes.append(f"values of the masks: {shown}")
    return labels


def _shown(names: Mapping[int, str]) -> str:
    plain = list(names) == list(range(len(names)))
    return ", ".join(name if plain else f"{value} = {name}" for value, name in names.items())
