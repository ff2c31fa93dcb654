"""Class weights or balanced draws, where classes or findings are unlike in number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest
from monai_transfer.tasks import Task

__all__ = ["BALANCES", "Balance", "class_weights", "finding_weights", "plan_balance"]

BALANCES = ("auto", "weights", "sampling", "none")

_UNLIKE = 2.0
_MOST = 10.0


@dataclass(frozen=True)
class Balance:
    """What makes up for unlike numbers.

    Attributes:
        weights: of the loss, by output; of a multilabel task those of a present finding.
        sampling: cases are drawn so that each class comes as often.
    """

    weights: list[float] | None = None
    sampling: bool = False


def plan_balance(
    manifest: Manifest, task: Task, sites: Sequence[str | None], names: Sequence[str], how: str, reasons: Reasons
) -> Balance:
    """Weights or balanced draws for a task that says one thing of an image; nothing for the others.

    Args:
        manifest: the data.
        task: the bundle's.
        sites: whose training cases count; ``None`` is all.
        names: of the outputs, in order.
        how: ``auto``: weights where the commonest is at least twice as common as the rarest; ``weights``, ``sampling``
            or ``none`` as asked.
        reasons: what ``new`` says.

    Raises:
        InputError: no such way, or none for this task.
    """
    if how not in BALANCES:
        raise InputError(f"--balance {how!r} is no way", hint=f"one of {', '.join(BALANCES)}")
    counted = task.label.is_class or manifest.multi_label
    if how in ("weights", "sampling") and (not counted or (how == "sampling" and manifest.multi_label)):
        fault = "a case has several findings, so that drawing for one unbalances another"
        if task.dense:
            fault = "a segmentation is balanced by where its patches are placed"
        elif not counted:
            fault = f"a {task.name} has no classes"
        hint = "--balance weights" if manifest.multi_label else "leave it out"
        raise InputError(f"--balance {how}: {fault}", path=manifest.path, hint=hint)
    if not counted:
        return Balance()
    if how == "none":
        reasons.add("balance", None, "as asked: every case counts alike")
        return Balance()
    if how == "sampling":
        reasons.add("balance", "sampling", "as asked: each class is drawn as often; rare cases return sooner")
        return Balance(sampling=True)
    if manifest.multi_label:
        return Balance(finding_weights(manifest, sites, names, reasons, always=how == "weights"))
    numbers = list(range(len(names)))
    return Balance(class_weights(manifest, list(sites), numbers, reasons, always=how == "weights"))


def finding_weights(
    manifest: Manifest, sites: Sequence[str | None], names: Sequence[str], reasons: Reasons, *, always: bool = False
) -> list[float] | None:
    """The weight of a present finding in the loss: cases without it for each case with it, 1 to 10.

    ``None`` where no finding is twice as often absent as present, unless ``always``; 1 for a finding that no case, or
    every case, has.
    """
    cases = [case for site in dict.fromkeys(sites) for case in manifest.cases("training", site=site, labelled=True)]
    told = [case.label for case in cases if isinstance(case.label, dict)]
    weights, shown = [], []
    for name in names:
        values = [label[name] for label in told if label.get(name) is not None]
        present = sum(value == 1 for value in values)
        ratio = (len(values) - present) / present if present else 1.0
        weights.append(round(min(_MOST, max(1.0, ratio)), 3))
        shown.append(f"{name} {present} of {len(values)}")
    if max(weights, default=1.0) < _UNLIKE and not always:
        reasons.add("finding_weights", None, f"training cases with a finding: {', '.join(shown)}: often enough")
        return None
    why = f"training cases with a finding: {', '.join(shown)}: a present one weighs as the absent ones do together"
    return list(reasons.add("finding_weights", weights, why))


def class_weights(
    manifest: Manifest, sites: list[str | None], classes: list[int], reasons: Reasons, *, always: bool = False
) -> list[float] | None:
    """Weights of the loss, the inverse of the classes' numbers of labelled training cases, of mean 1 over the cases.

    ``None`` where the commonest class has less than twice the cases of the rarest, unless ``always``. At most 10 times
    between classes.

    Args:
        manifest: of a classification.
        sites: whose training cases count; ``None`` is all.
        classes: numbers of the classes.
        reasons: where the reason goes.
        always: weights also where the classes are alike.
    """
    cases = [case for site in dict.fromkeys(sites) for case in manifest.cases("training", site=site, labelled=True)]
    counts = Counter(int(case.label) for case in cases if isinstance(case.label, (int, float)))
    numbers = [counts.get(value, 0) for value in classes]
    if min(numbers, default=0) < 1 or (max(numbers) < _UNLIKE * min(numbers) and not always):
        reasons.add("class_weights", None, f"classes have {', '.join(map(str, numbers))} training cases: alike enough")
        return None
    most = max(numbers)
    raw = [min(_MOST, most / n) for n in numbers]
    mean = sum(w * n for w, n in zip(raw, numbers, strict=True)) / sum(numbers)
    weights = [round(w / mean, 4) for w in raw]
    why = f"classes have {', '.join(map(str, numbers))} training cases: inverse of their numbers"
    return list(reasons.add("class_weights", weights, why))
