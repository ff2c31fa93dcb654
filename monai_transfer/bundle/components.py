"""Strategies and methods by their short name or full path, as configs; an unknown one is refused at once."""

from __future__ import annotations

import difflib
from importlib import import_module
from pydoc import locate
from typing import Any

from monai_transfer.discovery import classes_in
from monai_transfer.errors import InputError
from monai_transfer.methods.base import Method
from monai_transfer.methods.mcc import FEW_CLASSES
from monai_transfer.strategies.base import Strategy
from monai_transfer.tasks import Task
from monai_transfer.testtime.base import SourceFree

__all__ = ["AUTO", "INPUT_SPACE", "SELF_TRAINING_PRICE", "TRANSLATION", "component", "default_method", "method_kind"]

AUTO = "auto"
"""In place of a method's name: what ``default_method`` says."""

SELF_TRAINING_PRICE = (
    "it does not always help, and can cost at home: measured, Dice .633 against .418 untouched on the embedded "
    "segmentation, .644 against .849 at the source's site (most of that is normalisation statistics: estimated anew "
    "there by `new --method adabn` it is .84); on hippocampus .842 against .840, .850 against .838"
)
"""What it brought and cost after 400 steps (docs/truth_table.md, where its control stands): part of its reason."""

INPUT_SPACE = {
    "fourier": "monai_transfer.data.fourier.FourierDomainAdaptd",
    "histogram": "monai_transfer.data.histogram.HistogramMatchToTargetd",
}
"""Methods that give the source's images the target's look; they come before normalisation."""

TRANSLATION = "monai_transfer.data.translation.Translation"
"""It does so behind normalisation, and is fitted first."""


def component(kind: str, name: str) -> dict[str, Any]:
    """``coral`` or a full path as a config; refused here, not after the first hours of a run.

    Args:
        kind: ``methods`` or ``strategies``.
        name: a file's name in that package (of methods: in `testtime` too, or of `INPUT_SPACE`), or the full path of a
            class.

    Raises:
        InputError: there is no such class.
    """
    word = "method" if kind == "methods" else "strategy"
    if "." in name:
        module, _, attribute = name.rpartition(".")
        try:
            found = hasattr(import_module(module), attribute)
        except ImportError:
            found = False
        if not found:
            raise InputError(f"no {word} {name!r} can be imported", hint="give the full path of its class")
        return {"_target_": name}
    known = {name: _path(cls) for name, cls in classes_in(kind, Method if kind == "methods" else Strategy).items()}
    if kind == "methods":
        known |= {name: _path(cls) for name, cls in classes_in("testtime", SourceFree).items()} | INPUT_SPACE
        known["translation"] = TRANSLATION
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
        raise InputError(f"no {word} {name!r}", hint=hint)
    return {"_target_": known[name]}


def _path(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def default_method(task: Task, classes: int = 2, *, source_images: bool = True) -> tuple[str, str]:
    """What adapts to a target without labels where nobody names a method, and why.

    Args:
        task: what is learnt.
        classes: how many there are.
        source_images: whether labelled cases of the source are at hand.

    >>> from monai_transfer.tasks import get_task
    >>> default_method(get_task("segmentation"))[0], default_method(get_task("regression"), source_images=False)[0]
    ('self_training', 'adabn')
    """
    if not source_images:
        if not task.exclusive:
            return "adabn", "no labelled source case is at hand: BatchNorm's statistics are estimated on the target"
        return "source_free_self_training", "no labelled source case is at hand: the target's images alone"
    if not task.exclusive:
        return "dann", "alignment of features: self-training needs classes that exclude each other"
    if not task.dense and classes <= FEW_CLASSES:
        return "cdan", "alignment of features class by class: of seven methods the best on the embedded slices"
    if not task.dense:
        return "mcc", "class confusion on the target's predictions: of all terms the best on ten digits"
    return "self_training", f"a mean teacher's surest answers teach a strongly augmented view; {SELF_TRAINING_PRICE}"


def method_kind(method: dict[str, Any]) -> str:
    """How ``adapt`` uses a method: a ``term`` of the loss, ``source_free``, on ``input`` images, or ``translation``."""
    if method["_target_"] == TRANSLATION:
        return "translation"
    cls: Any = locate(str(method["_target_"]))
    if isinstance(cls, type) and issubclass(cls, SourceFree):
        return "source_free"
    return "input" if method["_target_"] in INPUT_SPACE.values() else "term"
