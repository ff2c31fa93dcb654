"""Budgets: how many steps, warm-up, and by what an epoch is chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.errors import InputError, closest

__all__ = ["BUDGETS", "ENOUGH_PATIENTS", "Budget", "plan_budget", "selects_epoch"]

BUDGETS = {"quick": 200, "standard": 1000, "full": 5000}
"""Optimizer steps of fine-tuning and adaptation by name; pretraining has twice as many."""
ENOUGH_PATIENTS = 8
"""Validation patients from which on they choose the epoch: with two to four the choice is noise."""
_EPOCHS = 20


@dataclass(frozen=True)
class Budget:
    """Epochs of equal length, whatever the number of cases.

    Attributes:
        epochs, pretrain_epochs: of fine-tuning and adaptation; of pretraining.
        steps_per_epoch: optimizer steps.
        warm_up: share of the epochs over which the learning rate rises.
    """

    epochs: int
    pretrain_epochs: int
    steps_per_epoch: int
    warm_up: float = 0.1


def plan_budget(
    budget: str | int,
    reasons: Reasons,
    *,
    epochs: int | None = None,
    pretrain_epochs: int | None = None,
    steps_per_epoch: int | None = None,
) -> Budget:
    """The budget by its name or by a number of steps.

    Args:
        budget: a name of ``BUDGETS``, or steps (a number, also as text).
        reasons: where the reasons go.
        epochs, pretrain_epochs, steps_per_epoch: what the user asked for in their place.

    Raises:
        InputError: neither a name nor a positive number.

    >>> plan_budget("standard", Reasons())
    Budget(epochs=20, pretrain_epochs=40, steps_per_epoch=50, warm_up=0.1)
    >>> plan_budget(7, Reasons(), pretrain_epochs=2)
    Budget(epochs=7, pretrain_epochs=2, steps_per_epoch=1, warm_up=0.1)
    """
    if str(budget) in BUDGETS:
        steps, named = BUDGETS[str(budget)], f"budget {budget}"
    elif str(budget).isdecimal() and int(budget) > 0:
        steps, named = int(budget), "as asked"
    else:
        raise InputError(f"no budget {budget!r}", hint=closest(str(budget), BUDGETS) + "; or a number of steps")
    each = steps_per_epoch or max(1, steps // _EPOCHS)
    found = Budget(epochs or math.ceil(steps / each), pretrain_epochs or math.ceil(2 * steps / each), each)
    if epochs or steps_per_epoch:
        named = "epochs and steps per epoch as asked"
    reasons.add("steps", found.epochs * each, f"{named}: {found.epochs} epochs of {each}; the same for every arm")
    reasons.add(
        "pretrain_steps", found.pretrain_epochs * each, "as asked" if pretrain_epochs else "twice as many at the source"
    )
    return found


def selects_epoch(patients: int) -> bool:
    """Whether so many validation patients choose the epoch; else the last one is kept."""
    return patients >= ENOUGH_PATIENTS
