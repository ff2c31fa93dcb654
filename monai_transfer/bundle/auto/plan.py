"""What ``auto`` is going to do and what that costs, known before anything is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_transfer.arm_names import arm_name
from monai_transfer.bundle.arm_overrides import AVERAGED
from monai_transfer.bundle.auto.arms import available_arms
from monai_transfer.bundle.run import open_workflow
from monai_transfer.selection.auto_rule import ENOUGH_PATIENTS

__all__ = ["UNLABELLED", "Plan", "make_plan"]

_FOLDS = 2
_COMPARED: Sequence[str] = ("head_only", "averaged", "joint_averaged", "joint", "fine_tuned", "scratch")
UNLABELLED: Sequence[str] = ("source", "statistics", "self_trained")
"""What is scored where there is no label."""
_BUDGET = 2.0  # fine-tunings that cross-validation may cost; the model that is handed on costs one more


@dataclass(frozen=True)
class Plan:
    """What is going to be looked at.

    Args:
        patients, cases: labelled ones of the target, in training and validation.
        arms: that can be run.
        left_out: the others, with the reason.
        compared: arms that are trained for cross-validation; empty where there is none.
        epochs, steps: of one training, and steps per epoch.
        fold_epochs, fold_steps: the same of a training for cross-validation.
    """

    patients: int
    cases: int
    arms: list[str]
    left_out: dict[str, str]
    compared: list[str]
    epochs: int
    steps: int
    fold_epochs: int = 0
    fold_steps: int = 0

    @property
    def folds(self) -> int:
        """Of the cross-validation."""
        return _FOLDS if self.compared else 0

    @property
    def cost(self) -> float:
        """Optimizer steps in all, over those of one fine-tuning."""
        trained = [arm for arm in self.compared if arm not in AVERAGED]  # they are another arm's training
        return 1.0 + self.folds * len(trained) * self.fold_epochs * self.fold_steps / (self.epochs * self.steps)

    @property
    def words(self) -> str:
        """What will be done, and its cost, in a sentence or two."""
        whole = self.epochs * self.steps
        known = f"{self.patients} labelled target patient{'s' if self.patients != 1 else ''} ({self.cases} cases)"
        if not self.patients:
            names = ", ".join(arm_name(arm) for arm in UNLABELLED if arm in self.arms)
            what = f"no labelled target case; scored on unlabelled images: {names}"
        elif not self.compared:
            what = (
                f"{known}, fewer than {ENOUGH_PATIENTS}: no cross-validation; the untouched source is scored on them "
                "and a fixed rule followed"
            )
        else:
            arms = ", ".join(arm_name(arm) for arm in self.compared)
            what = (
                f"{known}: {self.folds}-fold cross-validation by patient of {arms}, {self.fold_epochs} epochs of "
                f"{self.fold_steps} steps each, and of the untouched source"
            )
        then = f"; then one training of {whole} steps" if self.patients else f". That takes {whole} steps"
        return f"auto: {what}{then}. Cost: at most {self.cost:.2f} times one fine-tuning."


def make_plan(bundle: str | Path, overrides: Mapping[str, Any]) -> Plan:
    """Look at the bundle and its data lists.

    Args:
        bundle: its folder; opening it runs its code.
        overrides: of ``train``, without the strategy.

    Raises:
        InputError: whatever the bundle or its manifest is refused for.
    """
    arms, left_out, lists = available_arms(bundle, overrides)
    flow = open_workflow(bundle, "train", overrides, log=False)
    epochs, steps = (int(flow.parser.get_parsed_content(key)) for key in ("max_epochs", "steps_per_epoch"))
    patients, cases = len(lists.labelled_patients), len(lists.target_labelled)
    if patients < ENOUGH_PATIENTS:
        return Plan(patients, cases, arms, left_out, [], epochs, steps)
    # what is cross-validated shares the budget, so the list is short: self-training costs two, and has its place
    # where there are no labels
    compared = [arm for arm in _COMPARED if arm in arms]
    if "self_trained" in arms:
        arms.remove("self_trained")
        left_out["self_trained"] = "where labels are enough to cross-validate, its cost would be the others' budget"
    trained = sum(arm not in AVERAGED for arm in compared)
    share = _BUDGET / (_FOLDS * trained)
    fold_epochs = max(1, int(epochs * share))
    fold_steps = steps if fold_epochs * steps <= epochs * steps * share else max(1, int(steps * epochs * share))
    return Plan(patients, cases, arms, left_out, compared, epochs, steps, fold_epochs, fold_steps)
