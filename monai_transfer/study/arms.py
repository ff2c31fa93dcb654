"""The arms of a study: their names and how they are typed. Light: a wrong name is answered before MONAI is imported."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from monai_transfer.bundle.arm_overrides import ALONE, FROM_RANDOM, HEAD_ONLY, TUNED
from monai_transfer.bundle.command_line import AUTO, parse_overrides
from monai_transfer.discovery import file_names
from monai_transfer.errors import InputError
from monai_transfer.report.wording import CONTROLS

__all__ = ["ALL", "DEFAULT_ARMS", "METHODS", "PRESETS", "Arm", "are_default", "parse_arms"]


@dataclass(frozen=True)
class Arm:
    """One arm: its name in the report, the workflow it runs, and what it overrides.

    ``seeded`` is False where nothing is drawn: such an arm is run once and stands for every seed. ``of_method``: it is
    called by a method's name, and what it overrides is found when the bundle is opened (``study.method_arms``).
    ``pretraining``: it starts from a source of its own, pretrained under these overrides.

    >>> arm = Arm("fine_tuned_lora", "train", {"strategy": {"_target_": "monai_transfer.strategies.lora.Lora"}})
    >>> arm.workflow, arm.seeded
    ('train', True)
    """

    name: str
    workflow: str
    overrides: dict[str, Any] = field(default_factory=dict)
    seeded: bool = True
    of_method: bool = False
    pretraining: dict[str, Any] = field(default_factory=dict)


ALL = "all"
METHODS = (*file_names("methods"), *file_names("testtime"), "fourier", "histogram", "translation", *CONTROLS)
"""Arms by a method's name: a term of the loss, at test time, or of the input images; and what they have to beat."""

ARM_WORKFLOWS = ("train", "adapt", "evaluate")
PRESETS = {
    "scratch": Arm("scratch", "train", {**FROM_RANDOM, "regulariser": None, **ALONE}),
    # with the source's network and preprocessing, where `scratch` has those planned for the data
    "scratch_same": Arm("scratch_same", "train", {**FROM_RANDOM, "regulariser": None, **ALONE}),
    "source": Arm("source", "evaluate", seeded=False),
    **{name: Arm(name, "train", overrides) for name, overrides in TUNED.items()},
    "head_only": Arm("head_only", "train", {"strategy#_target_": HEAD_ONLY["_target_"], **ALONE}),
    # decides between these by itself, before a test case is seen (docs/auto.md)
    "auto": Arm("auto", "train", {"strategy": AUTO}),
    "adapted": Arm("adapted", "adapt"),
    # adaptation's own budget without its term: what more source training, the target's statistics and the average of
    # the weights bring by themselves
    "source_continued": Arm("source_continued", "adapt", {"weight": 0.0}),
    # the untouched source, had its contrast been randomised
    "randomised": Arm("randomised", "evaluate", seeded=False, pretraining={"augment_source": "randomised"}),
    "oracle": Arm("oracle", "train", {"n_labelled": None, **ALONE}),
}
"""Arms by name. ``scratch`` of a bundle made from a source is what a user without it would train, network and
preprocessing planned for the data (``configs/scratch.yaml``); ``scratch_same`` has the source's from random weights;
``oracle`` has all of the target's labels: an upper mark, not something to reach."""


DEFAULT_ARMS = "scratch,source,fine_tuned,joint,source_longer,adapted"
"""The arms of a study that names none; ``scratch_same`` joins them where ``scratch`` has a network of its own."""


def are_default(arms: Sequence[Arm]) -> bool:
    """Whether nobody named these arms; the control may have been left out, where a bundle has none."""
    names, default = {arm.name for arm in arms}, set(DEFAULT_ARMS.split(","))
    return names <= default and default - names <= {"source_longer"}


def parse_arms(text: str) -> list[Arm]:
    """``"scratch,source,coral,adabn,lora:train:strategy#rank=4"`` as arms; overrides are separated by colons.

    ``all`` stands for every method that fits the bundle, its references and controls.

    Raises:
        InputError: an unknown name without a workflow, or a malformed override.
    """
    arms = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, *rest = item.split(":")
        if not rest:
            if name in PRESETS:
                arms.append(PRESETS[name])
            elif name == ALL or name in METHODS:
                arms.append(Arm(name, "adapt", of_method=True))
            else:
                near = difflib.get_close_matches(name, [*PRESETS, *METHODS], n=1)
                known = f"one of {', '.join(PRESETS)}, all, a method ({', '.join(METHODS)}), or name:workflow:key=value"
                raise InputError(f"no arm {name!r}", hint=f"did you mean {near[0]}?" if near else known)
            continue
        base = PRESETS.get(rest[0])
        overrides = parse_overrides([f"--{pair}" for pair in rest[1:]])
        if base is not None:
            arms.append(replace(base, name=name, overrides={**base.overrides, **overrides}))
        elif rest[0] in ARM_WORKFLOWS:
            arms.append(Arm(name, rest[0], overrides, rest[0] != "evaluate"))
        else:
            hint = f"one of {', '.join([*ARM_WORKFLOWS, *PRESETS])}"
            raise InputError(f"no arm {name!r}: no workflow {rest[0]!r}", hint=hint)
    if len({arm.name for arm in arms}) != len(arms) or not arms:
        raise InputError(f"arms {text!r} are empty or name one twice", hint="name each arm once, as in scratch,source")
    return arms
