"""Budgets: how many steps, warm-up, and by what an epoch is chosen."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.errors import InputError, closest

__all__ = ["BUDGETS", "ENOUGH_PATIENTS", "Budget", "asked_for", "in_short", "plan_budget", "selects_epoch"]

BUDGETS = {"quick": 200, "standard": 1000, "full": 5000}
"""Optimizer steps of fine-tuning and adaptation by name; pretraining has twice as many."""
ENOUGH_PATIENTS = 8
"""Validation patients from which on they choose the epoch: with two to four the choice is noise."""
_EPOCHS = 20


_SECONDS = {"h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0}


def asked_for(text: str | int) -> tuple[int | None, float | None]:
    """What a word says: optimizer steps, or seconds.

    Args:
        text: a name of ``BUDGETS``, a number of steps, or a duration: ``2h``, ``1.5h``, ``90min``, ``45s``.

    Raises:
        InputError: none of them.

    >>> asked_for("quick"), asked_for("750"), asked_for("1.5h"), asked_for("90 min")
    ((200, None), (750, None), (None, 5400.0), (None, 5400.0))
    """
    word = str(text).strip()
    if word in BUDGETS:
        return BUDGETS[word], None
    if word.isdecimal() and int(word) > 0:
        return int(word), None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(h|min|m|s)", word)
    if found and float(found[1]) > 0:
        return None, float(found[1]) * _SECONDS[found[2]]
    raise InputError(
        f"no budget {word!r}", hint=f"{closest(word, BUDGETS)}; or a number of steps, or a time such as 2h or 30min"
    )


def in_short(known: Mapping[str, Any]) -> str:
    """What a budget became, as a run records it under ``budget``.

    >>> in_short({"asked": "750", "epochs": 15, "steps_per_epoch": 50})
    'budget 750: 15 epochs of 50 steps'
    """
    text = f"budget {known['asked']}: {known['epochs']} epochs of {known['steps_per_epoch']} steps"
    if "seconds_per_step" in known:
        step, validation = known["seconds_per_step"], known["seconds_per_validation"]
        text += f", by {step:.3g} s per step and {validation:.3g} s per validation that were timed"
    return text


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
    steps, _ = asked_for(budget)
    if steps is None:
        raise InputError(
            f"{budget} is a time, and no step was timed yet",
            hint="leave it out here, and say it when training: `monai-transfer run BUNDLE train --budget 2h`",
        )
    named = f"budget {budget}" if str(budget) in BUDGETS else "as asked"
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
