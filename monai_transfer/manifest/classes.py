"""Settling what is predicted where labels are no masks: the task, classes, findings and values of all folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError, closest
from monai_transfer.manifest.layouts.base import FolderContents, RawCase
from monai_transfer.manifest.options import Names
from monai_transfer.tasks import manifest_tasks, task_of_labels
from monai_transfer.tasks.labels import CLASS, MASK, NUMBER

__all__ = ["given_names", "number_classes", "regression_values", "settle_findings", "settle_task"]


def settle_task(founds: Sequence[FolderContents], task: str | None) -> str:
    """The task that was asked for, or the one that the labels show.

    Raises:
        InputError: no such task, folders of different tasks, or no label to tell it by.
    """
    if task is not None:
        if task not in manifest_tasks():
            raise InputError(f"no task is called {task!r}", hint=closest(task, manifest_tasks()))
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
            "give labels with --table FILE or --label-regex, name a table's columns with --label-column or --findings, "
            "say --layout classes where folders are classes, or, for images without labels, --task and --labels"
        )
        number = sum(len(found.cases) for found in founds)
        raise InputError(f"none of the {number} cases found has a label to tell the task by", hint=hint)
    if "mask files" in kinds:
        return task_of_labels(MASK)
    numbers = [label for label in labels if not isinstance(label, (str, dict))]
    if len(numbers) < len(labels):
        return task_of_labels(CLASS)
    quantities = any(isinstance(label, float) for label in numbers) or len(set(numbers)) > 20
    return task_of_labels(NUMBER if quantities else CLASS)


def number_classes(founds: Sequence[FolderContents], given: Names | None, notes: list[str]) -> dict[int, str]:
    """Turn every label into a class number, in place; returns the class names by number.

    Raises:
        InputError: names that were given do not fit what was found, or the folders' classes differ.
    """
    all_names: list[str] = list(dict.fromkeys(given_names(given).values())) if given else []
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


def given_names(given: Names) -> dict[Any, str]:
    """The user's names by what they name: a number, a text, or (of a mere list) the place."""
    return {_key(key): name for key, name in given.items()} if isinstance(given, Mapping) else dict(enumerate(given))


def _key(key: Any) -> Any:
    return int(key) if isinstance(key, int) or str(key).isdecimal() else key


def _class_names(found: FolderContents, given: Names | None, notes: list[str]) -> dict[Any, str]:
    """What stands as a label in ``found`` -> class name, in the order of the numbers."""
    labels = {case.label for case in found.cases} - {None}
    numbers = {name: number for number, name in found.labels.items()}  # what the layout says, e.g. {"normal": 0}
    if given is not None:
        wanted = given_names(given)
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
            fault = f"class {unknown[0]!r} is not among the set's own names {sorted(found.labels.values())}"
            raise InputError(fault, hint="name them all with --labels FOUND=NAME,...")
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


def settle_findings(founds: Sequence[FolderContents], given: Names | None, notes: list[str]) -> dict[int, str]:
    """Give every label all findings of the set, in place, and return their names by number.

    A finding that a folder does not know is unknown there. ``given`` chooses findings (a list), or renames them (by
    what was found); of several under one name any that is present counts.

    Raises:
        InputError: some labels are no findings, or the names fit none.
    """
    cases = [case for case in _cases(founds) if case.label is not None]
    odd = next((case for case in cases if not isinstance(case.label, dict)), None)
    if odd is not None:
        hint = "give all labels in one way: a column for each finding, or a list in one cell"
        raise InputError(f"label {odd.label!r} of {odd.key} is no set of findings, as others are", hint=hint)
    known = list(dict.fromkeys(name for case in cases for name in case.label))  # type: ignore[union-attr]
    rename = dict.fromkeys(known)
    if given is None:
        rename = {name: name for name in known}
    else:
        renamed = isinstance(given, Mapping)
        lowered = {str(key if renamed else name).lower(): name for key, name in given_names(given).items()}
        rename = {name: lowered.get(name.lower()) for name in known}
    names = list(dict.fromkeys(given_names(given).values())) if given is not None else known
    if not any(rename.values()):
        raise InputError("--labels names none of the findings", hint=f"they are {', '.join(known[:12])}")
    for case in cases:
        merged: dict[str, int | None] = dict.fromkeys(names)
        for old, value in case.label.items():  # type: ignore[union-attr]
            new = rename[old]
            if new is not None and (value == 1 or (merged[new] is None and value is not None)):
                merged[new] = value
        case.label = merged
    dropped = [name for name in known if rename[name] is None]
    if dropped:
        notes.append(f"findings left out by --labels: {', '.join(dropped)}")
    return dict(enumerate(names))


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
