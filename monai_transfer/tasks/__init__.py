"""What can be predicted: one :class:`Task` in each file, and here their list, the only one.

>>> from monai_transfer.tasks import TASKS, get_task
>>> ", ".join(TASKS)
'classification, segmentation, regression, localization, multilabel, regions, self_supervised'
>>> get_task("regression").description
'one quantity for every image'
"""

from __future__ import annotations

from typing import Any

from monai_transfer.errors import InputError, closest
from monai_transfer.tasks.base import Config, Outputs, Task
from monai_transfer.tasks.classification import CLASSIFICATION
from monai_transfer.tasks.labels import LabelKind
from monai_transfer.tasks.localization import LOCALIZATION
from monai_transfer.tasks.multilabel import MULTILABEL
from monai_transfer.tasks.regions import REGIONS
from monai_transfer.tasks.regression import REGRESSION
from monai_transfer.tasks.segmentation import SEGMENTATION
from monai_transfer.tasks.self_supervised import SELF_SUPERVISED

__all__ = [
    "TASKS",
    "Config",
    "LabelKind",
    "Outputs",
    "Task",
    "get_task",
    "independent_tasks",
    "judged_tasks",
    "manifest_tasks",
    "may_have",
    "method_tasks",
    "recognise",
    "task_of",
    "task_of_labels",
]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (CLASSIFICATION, SEGMENTATION, REGRESSION, LOCALIZATION, MULTILABEL, REGIONS, SELF_SUPERVISED)
}
"""Every task by its name."""


def get_task(name: str | Task) -> Task:
    """The task of that name; a ``Task`` is given back.

    Args:
        name: of the task.

    Raises:
        InputError: there is none.

    >>> get_task("segmentation").primary_metric, get_task("regression").primary_metric
    ('dice', 'mae')
    """
    if isinstance(name, Task):
        return name
    if name not in TASKS:
        raise InputError(f"no task is called {name!r}", hint=closest(str(name), TASKS))
    return TASKS[name]


def task_of(manifest: Any) -> Task:
    """The task of a manifest: ``multilabel`` where a classification's cases have several findings, ``regions`` where a
    segmentation declares regions.

    Args:
        manifest: with ``task`` and, where it has them, ``multi_label`` and ``regions``.

    >>> from monai_transfer.manifest import Manifest
    >>> item = {"image": "a.png", "label": {"nodule": 1, "effusion": None}, "case": "a", "patient": "a", "site": "x"}
    >>> head = {"name": "chest", "task": "classification", "labels": {"0": "nodule", "1": "effusion"}}
    >>> task_of(Manifest.from_dict(head | {"training": [item]}, ".")).name  # a classification with several findings
    'multilabel'
    """
    forms = (task for task in TASKS.values() if task.form_of == manifest.task and task.applies(manifest))
    return next(forms, None) or get_task(manifest.task)


def judged_tasks() -> list[str]:
    """Names of the tasks whose test cases are judged against a label.

    >>> judged_tasks()
    ['classification', 'segmentation', 'regression', 'localization', 'multilabel', 'regions']
    """
    return [task.name for task in TASKS.values() if task.judged]


def recognise(logits: Any, label: Any) -> Task | None:
    """The task that a training batch is of, as far as its outputs and labels tell; None where they do not.

    Args:
        logits: B x C (x spatial), a tensor.
        label: what they are compared with; a tensor.

    >>> import torch
    >>> masks, classes = torch.zeros(2, 1, 8, 8), torch.tensor([0, 2])
    >>> recognise(torch.zeros(2, 3, 8, 8), masks).name, recognise(torch.zeros(2, 3), classes).name
    ('segmentation', 'classification')
    """
    if not hasattr(label, "is_floating_point"):
        return None
    forms_first = sorted(TASKS.values(), key=lambda task: task.form_of is None)  # regions are a segmentation too
    return next((task for task in forms_first if task.seen_in is not None and task.seen_in(logits, label)), None)


def manifest_tasks() -> list[str]:
    """Names of the tasks that a manifest may be of.

    >>> manifest_tasks()
    ['classification', 'segmentation', 'regression', 'localization']
    """
    return [task.name for task in TASKS.values() if task.in_manifest]


def task_of_labels(kind: LabelKind) -> str:
    """The task that labels of that kind are taken to be for where nothing else is said: the first of the list.

    Args:
        kind: of labels.

    >>> from monai_transfer.tasks.labels import MASK
    >>> task_of_labels(MASK)
    'segmentation'
    """
    return next(task.name for task in TASKS.values() if task.in_manifest and task.label is kind)


def may_have(name: str, kind: LabelKind) -> bool:
    """Whether the labels of a manifest of that task may be of that kind.

    Args:
        name: of a manifest's task.
        kind: of labels.

    >>> from monai_transfer.tasks.multilabel import FINDINGS
    >>> may_have("classification", FINDINGS), may_have("regression", FINDINGS)
    (True, False)
    """
    return any(task.label is kind for task in TASKS.values() if name in (task.name, task.form_of))


def independent_tasks(*, dense: bool | None = None) -> tuple[str, ...]:
    """The tasks whose outputs do not exclude each other, which a method's ``tasks`` may name beside ``method_tasks``.

    Args:
        dense: only those with, or without, an output for every voxel.

    >>> independent_tasks(), independent_tasks(dense=True)
    (('multilabel', 'regions'), ('regions',))
    """
    return tuple(task.name for task in TASKS.values() if task.independent and dense in (None, task.dense))


def method_tasks(*, exclusive: bool | None = None, dense: bool | None = None) -> tuple[str, ...]:
    """The tasks that a method's ``tasks`` may name; every other is trained as one of them.

    Args:
        exclusive: only those whose outputs are, or are not, classes that exclude each other (class probabilities).
        dense: only those with, or without, an output for every voxel.

    >>> method_tasks(exclusive=True), method_tasks(exclusive=True, dense=True)
    (('classification', 'segmentation'), ('segmentation',))
    """
    named = dict.fromkeys(task.as_method_sees_it for task in TASKS.values() if task.in_manifest)
    wanted = {"exclusive": exclusive, "dense": dense}
    return tuple(
        name for name in named if all(want in (None, getattr(TASKS[name], key)) for key, want in wanted.items())
    )
