"""Classes that a source knows and the data do not annotate: whether a new bundle keeps them, and by what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest
from monai_transfer.tasks import Task
from monai_transfer.weights.classes import same_name

__all__ = ["KeptClasses", "plan_kept_classes"]

_MOST = 20
_BACKGROUND = ("background", "bg")


@dataclass(frozen=True)
class KeptClasses:
    """What is kept.

    Attributes:
        added: classes of the source that the manifest does not name; the network gets an output for each.
        kept: all classes of the source that some labelled case of the target was not looked at for.
        known: the outputs that the source knows, by name; background included.
    """

    added: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    known: tuple[str, ...] = ()

    def distillation(self, outputs: Sequence[str], activation: str) -> dict[str, Any] | None:
        """The term that holds the kept classes to the source's answers; ``None`` where there are none.

        Args:
            outputs: names of the network's outputs, in order.
            activation: theirs.
        """
        if not self.kept:
            return None
        wanted = self.known if activation == "softmax" else self.kept
        return {
            "_target_": "monai_transfer.methods.distillation.Distillation",
            "kept": [n for n, name in enumerate(outputs) if name in wanted],
            "activation": activation,
        }


def plan_kept_classes(
    data: Manifest,
    task: Task,
    target: str | None,
    source_classes: Sequence[str] | None,
    activation: str | None,
    wanted: bool | None,
    reasons: Reasons,
) -> KeptClasses:
    """The classes to keep; the reason goes to ``reasons`` wherever the source knows any that could be.

    Args:
        data: the manifest.
        task: its task.
        target: the target's site; ``None`` is all.
        source_classes: names of the source's outputs, in order; ``None``: not known.
        activation: of the source's outputs, where it is known.
        wanted: as asked; ``None``: kept in segmentations, unless they are more than twenty.
        reasons: what ``new`` says.

    Raises:
        InputError: they are asked for, and cannot be kept.
    """
    fault = _cannot(data, task, source_classes, activation)
    if fault:
        if wanted:
            raise InputError(f"--keep-classes: {fault}", path=data.path, hint="leave it out, or say --no-keep-classes")
        return KeptClasses()
    names = list(source_classes or ())
    ours = {same_name(name): name for name in data.labels.values()}
    foreign = names if data.multi_label else names[1:]
    added = [name for name in foreign if same_name(name) not in ours]
    if added and wanted is False:
        reasons.add("keep_classes", [], f"as asked: the source's {', '.join(added)} will be forgotten")
        added = []
    if wanted is None and len(added) > _MOST:
        why = f"the source knows {len(added)} classes that the manifest does not: --keep-classes keeps them"
        reasons.add("keep_classes", [], why)
        added = []
    cases = data.cases("training", site=target, labelled=True)
    seen = [data.annotated_in(case) for case in cases]
    unseen = {name for told in seen if told is not None for name in data.labels.values() if name not in told}
    if data.multi_label:
        findings = [case.label for case in cases if isinstance(case.label, dict)]
        unseen = {name for name in data.labels.values() if any(label.get(name) is None for label in findings)}
    theirs = {same_name(name) for name in foreign}
    partly = [name for name in data.class_names if name in unseen and same_name(name) in theirs]
    kept = (*partly, *added) if wanted is not False else ()
    if kept:
        where = "the manifest does not annotate them" if added and not partly else "not every target case tells of them"
        reasons.add("keep_classes", list(kept), f"the source knows them and {where}; --no-keep-classes drops them")
    background = () if data.multi_label else (data.class_names[0],)
    known = [name for name in data.class_names if same_name(name) in theirs]
    return KeptClasses(tuple(added), kept, (*background, *known, *added))


def _cannot(data: Manifest, task: Task, names: Sequence[str] | None, activation: str | None) -> str:
    """Why a source's classes cannot be kept; empty where they can."""
    if not names:
        return "the source does not name its classes"
    if data.multi_label:
        return "" if activation == "sigmoid" else "the source's classes are not known to be findings, a sigmoid each"
    if not (task.dense and task.exclusive and task.saved_as == "mask"):
        return f"classes are kept in a segmentation or among findings, and the task is {task.name}"
    if same_name(names[0]) not in _BACKGROUND or activation == "sigmoid":
        return f"the source's outputs ({', '.join(names[:4])}) are not classes beside a background"
    return "" if "0" in data.labels else "the manifest names no background"
