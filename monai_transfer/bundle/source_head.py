"""What a source's outputs are, and what they are here: classes that exclude each other, labels that do not, quantities.

The new bundle's task says what its outputs are (``Task.activation``); losses, methods, metrics and inference ask it.
Rows of a head go over by the names of their classes whatever the source's outputs were; where they were of another
kind, the untouched source's scores are not what it was trained to give, and that is said.
"""

from __future__ import annotations

import logging
from typing import Any

from monai_transfer.bundle_reader import BundleDescription
from monai_transfer.errors import InputError
from monai_transfer.tasks import TASKS, Task

__all__ = ["HEADS", "head_facts", "head_of"]

logger = logging.getLogger(__name__)

HEADS = ("softmax", "sigmoid", "regression")
_REGRESSIONS = ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")


def head_of(found: BundleDescription | None) -> tuple[str | None, str]:
    """The kind of a bundle's head, one of ``HEADS`` or ``None``, and what says so.

    Args:
        found: the bundle, read; ``None`` for a checkpoint, which does not say.

    >>> head_of(None)
    (None, '')
    """
    if found is None:
        return None, ""
    task = TASKS.get(str(found.task))
    if task is not None and task.judged:
        return task.activation or "regression", "its metadata"
    if found.loss is not None and found.loss.name in _REGRESSIONS:
        return "regression", f"its loss, {found.loss.name}"
    return found.activation, "its activation or loss" if found.activation else ""


def head_facts(told: str | None, by: str, asked: str | None, task: Task) -> dict[str, Any]:
    """What goes into ``source.json``, with a warning where the heads differ or the source's is not known.

    Args:
        told: what the source says, one of ``HEADS``; ``None``: nothing. by: what says so.
        asked: what the user says, in its place.
        task: of the new bundle.

    Raises:
        InputError: ``asked`` is none of ``HEADS``.
    """
    if asked is not None and asked not in HEADS:
        raise InputError(f"no head is called {asked!r}", hint=f"one of {', '.join(HEADS)}")
    here = task.activation or "regression"
    kind, by = (asked, "as asked") if asked is not None else (told, by)
    if kind is None:
        logger.warning(
            "the source does not say what its outputs are; they are taken for what this task's are (%s): "
            "--source-head says it otherwise", here,
        )  # fmt: skip
        return {"head": {"source": None, "here": here}}
    if kind != here:
        logger.warning(
            "the source's outputs are %s (%s) and this task's are %s: the head is a start, and the untouched source's "
            "scores are not those it was trained to give", _WORDS[kind], by, _WORDS[here],
        )  # fmt: skip
    return {"head": {"source": kind, "by": by, "here": here}}


_WORDS = {
    "softmax": "classes that exclude each other (softmax)",
    "sigmoid": "labels that do not exclude each other (sigmoid)",
    "regression": "quantities",
}
