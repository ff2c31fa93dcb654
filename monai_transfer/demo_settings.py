"""What the demo does with the embedded set of each task: short trainings on a small grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.tasks.classification import CLASSIFICATION
from monai_transfer.tasks.regression import REGRESSION
from monai_transfer.tasks.segmentation import SEGMENTATION

__all__ = ["DEMOS", "DemoSettings", "demo_settings"]


@dataclass(frozen=True)
class DemoSettings:
    """Options of the demo's bundle.

    Args:
        n_labelled: labelled target cases that fine-tuning gets.
        pretrain_epochs: of the source.
        epochs: of every other training.
        more: further options of ``new_bundle``.

    >>> DemoSettings(n_labelled=3, more={"patch": [48, 48, 40]}).options["patch"]
    [48, 48, 40]
    """

    n_labelled: int
    pretrain_epochs: int = 30
    epochs: int = 10
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """All of it, as ``new_bundle`` takes it."""
        numbers = {"n_labelled": self.n_labelled, "pretrain_epochs": self.pretrain_epochs, "epochs": self.epochs}
        return numbers | dict(self.more)


DEMOS: dict[str, DemoSettings] = {
    SEGMENTATION.name: DemoSettings(3, more={"spacing": [4.0, 4.0, 4.0], "patch": [48, 48, 40]}),
    CLASSIFICATION.name: DemoSettings(16),
    REGRESSION.name: DemoSettings(4, pretrain_epochs=20),
}
"""The demo of each task that has one."""


def demo_settings(task: str) -> DemoSettings:
    """The demo of a task.

    Raises:
        InputError: there is none.

    >>> demo_settings("classification").options
    {'n_labelled': 16, 'pretrain_epochs': 30, 'epochs': 10}
    """
    if task not in DEMOS:
        raise InputError(f"no demo of {task!r}", hint=f"one of {', '.join(DEMOS)}")
    return DEMOS[task]
