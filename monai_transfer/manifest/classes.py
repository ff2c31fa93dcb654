"""Settling what is predicted: the task, the class names, and one numbering for all folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.manifest.checks import TASKS, closest
from monai_transfer.manifest.layouts.base import FolderContents, RawCase
from monai_transfer.manifest.masks import label_names, mask_values

__all__ = ["Names", "settle_task", "number_classes", "number_masks", "regression_values"]

Names = Sequence[str] | Mapping[Any, str]
"""Class names as the user gives them: in order, or by what was found (a number or a class folder's name)."""


def settle_task(founds: Sequence[FolderContents], task: str | None) -> str:
    """The task that was asked for, or the one that the labels show.

    Raises:
        InputError: no such task, folders of different tasks, or no label to tell it by.
    """
    if task is not None:
        if task not in TASKS:
            raise InputError(f"no task is called {task!r}", hint=closest(task, TASKS))
        return task
    labels = [case.label for found in founds for case in found.cases if case.label is not None]
    kinds = {"mask files" if isinstance(label, Path) else "classes or values" for label in labels}
    if len(kinds) > 1:
        raise InputError("some labels are mask files and some are classes or values", hint="say --task")
    if not labels:
        told = {found.texts.get("task") for found in founds} - {None}
        if len(told) == 1:
            return str(told.pop())
        hint = (
            "give labels with --table FILE or --label-regex, say --layout classes where folders are classes, or, for "
            "images without labels, --task and --labels"
        )
        number = sum(len(found.cases) for found in founds)
        raise InputError(f"none of the {number} cases found has a label to tell the task by", hint=hint)
    if "mask files" in kinds:
        return "segmentation"
    numbers = [label for label in labels if not isinstance(label, str)]
    if len(numbers) < len(labels):
        return "classification"
    return (
        "regression"
        if any(isinstance(label, float) for label in numbers) or len(set(numbers)) > 20
        else "classification"
    )


def number_classes(founds: Sequence[FolderContents], given: Names | None, notes: list[str]) -> dict[int, str]:
    """Turn every label into a class number, in place; returns the class names by number.

    Raises:
        InputError: names that were given do not fit what was found, or the folders' classes differ.
    """
    all_names: list[str] = list(dict.fromkeys(_given_names(given).values())) if given else []
    for found in founds:
        names = _class_names(found, given, notes)
        values = set(names.values())
        if not all_names:
            all_names = [names[key] for key in names]
        elif values and not values <= set(all_names):
            if not set(all_names) <= values or given:
                hint = "name them alike for all folders: --labels normal,pneumonia or --labels FOUND=NAME,..."
                raise InputError(
                    f"classes differ: {', '.join(all_names)} here, {', '.join(sorted(values))} there", hint=hint
                )
            all_names += [name for name in names.values() if name not in all_names]
        for case in found.cases:
            if case.label is not None:
                case.label = names[case.label]  # type: ignore[index]
    index = {name: number for number, name in enumerate(all_names)}
    for case in _cases(founds):
        if case.label is not None:
            case.label = index[str(case.label)]
    return dict(enumerate(all_names))


def _given_names(given: Names) -> dict[Any, str]:
    return {_key(key): name for key, name in given.items()} if isinstance(given, Mapping) else dict(enumerate(given))


def _key(key: Any) -> Any:
    return int(key) if isinstance(key, int) or str(key).isdecimal() else key


def _class_names(found: FolderContents, given: Names | None, notes: list[str]) -> dict[Any, str]:
    """What stands as a label in ``found`` -> class name, in the order of the numbers."""
    labels = {case.label for case in found.cases} - {None}
    numbers = {name: number for number, name in found.labels.items()}  # what the layout says, e.g. {"normal": 0}
    if given is not None:
        wanted = _given_names(given)
        lowered = {name.lower(): name for name in wanted.values()}
        result = {}
        for label in sorted(labels, key=str):
            # By the label itself, by its number, then (for a list of names) by the name, whatever its case.
            name = wanted.get(_key(label)) or wanted.get(numbers.get(str(label)))
            if name is None or (not isinstance(given, Mapping) and isinstance(label, str) and label.lower() in lowered):
                name = lowered.get(str(label).lower(), name)
            if name is None:
                hint = f"say which is which: --labels {','.join(f'{x}=NAME' for x in sorted(map(str, labels)))}"
                raise InputError(f"class {label!r} fits none of the given names", hint=hint)
            result[label] = name
        return result
    if all(isinstance(label, str) for label in labels):
        order = sorted(labels, key=lambda label: (numbers.get(str(label), len(numbers)), str(label)))
        return {label: str(label) for label in order}
    if found.labels:
        unknown = [label for label in labels if label not in found.labels]
        if unknown:
            raise InputError(f"class {unknown[0]!r} is not among the set's own names {sorted(found.labels.values())}")
        return dict(sorted(found.labels.items()))
    listed: list[Any] = list(labels)
    values = sorted(listed, key=lambda label: (isinstance(label, str), label))
    if not labels:
        return {}
    if values == list(range(len(values))):
        notes.append(f"classes have no names: called class_0 to class_{len(values) - 1}; name them with --labels")
    else:
        notes.append(
            f"classes {', '.join(map(str, values[:8]))} numbered from 0 in this order; name them with --labels"
        )
    return {value: f"class_{value}" for value in values}


def number_masks(
    founds: Sequence[FolderContents],
    given: Names | None,
    binary: bool,
    progress: Callable[[Iterable, str], Iterable],
    notes: list[str],
) -> dict[int, str]:
    """Names of the mask values: the user's, the layout's, or stand-ins after a look into every mask.

    Raises:
        InputError: the masks' values are no class numbers, or the folders' names differ.
    """
    drawn = {tuple(sorted(found.labels.items())) for found in founds if found.drawn}
    if drawn and (len(drawn) > 1 or not all(found.drawn for found in founds)):
        raise InputError("structures are drawn differently in the folders", hint="build and merge manifests one by one")
    if drawn:
        return dict(drawn.pop())
    if given is not None:
        names = _given_names(given)
        if any(not isinstance(key, int) for key in names):
            raise InputError("--labels of masks go by number", hint="write 0=background,1=tumour or background,tumour")
        if len(names) == 1:  # the one class that is meant stands against a background
            names = {0: "background", 1: next(iter(names.values()))}
            if names[1].lower() == "background":
                raise InputError("--labels names the background only", hint="write background,tumour")
        return dict(sorted(names.items()))
    if binary:
        return {0: "background", 1: "foreground"}
    told = {tuple(sorted(found.labels.items())) for found in founds if found.labels}
    if len(told) > 1:
        raise InputError("the folders name their labels differently", hint="give one set of names with --labels")
    if told:
        return dict(told.pop())
    masks = [case.label for case in _cases(founds) if isinstance(case.label, Path)]
    if not masks:
        raise InputError("no mask to tell the labels by", hint="name them: --labels background,tumour")
    result = label_names({mask: mask_values(mask) for mask in progress(masks, "Looking into masks")})
    notes.append(f"labels have no names: called {', '.join(result.values())}; name them with --labels")
    return result


def regression_values(founds: Sequence[FolderContents]) -> None:
    """Turn every label into a float, in place.

    Raises:
        InputError: one is no number.
    """
    for case in _cases(founds):
        if isinstance(case.label, (str, Path, dict)):
            raise InputError(
                f"label {str(case.label)!r} of {case.key} is no number", hint="choose a numeric --label-column"
            )
        case.label = None if case.label is None else float(case.label)


def _cases(founds: Sequence[FolderContents]) -> Iterable[RawCase]:
    return (case for found in founds for case in found.cases)
