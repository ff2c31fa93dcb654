"""Which case goes where: given splits, unlabelled patients, duplicates, and the rest by patient and stratum."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_transfer.manifest.findings import rarest_finding
from monai_transfer.manifest.layouts.base import RawCase, count
from monai_transfer.manifest.options import SplitOptions
from monai_transfer.manifest.splits import assign_folds, assign_splits
from monai_transfer.tasks import Task

__all__ = ["fold_cases", "partition"]


def _strata(cases: Sequence[RawCase], task: Task) -> list[tuple[Any, ...]]:
    """Site and label of each case, as the task balances them; of several findings the rarest."""
    values = task.label.strata(rarest_finding([case.label for case in cases]))
    return [(case.site, value) for case, value in zip(cases, values, strict=True)]


def _groups(cases: Sequence[RawCase], sums: dict[Path, str], notes: list[str]) -> list[str]:
    """What must stay together, by case: patients, joined where they share an image bit for bit."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    owner: dict[str, str] = {}
    shared = set()
    for case in cases:
        patient = str(case.patient)
        for path in case.images if sums else []:
            other = owner.setdefault(sums[path], patient)
            if find(other) != find(patient):
                shared.add(sums[path])
                parent[find(patient)] = find(other)
    if shared:
        notes.append(f"{count(len(shared), 'image')} stand bit for bit under several patients: kept in one split")
    return [find(str(case.patient)) for case in cases]


def partition(
    cases: Sequence[RawCase],
    task: Task,
    options: SplitOptions,
    from_table: bool,
    sums: dict[Path, str],
    notes: list[str],
) -> list[str]:
    """The split of every case, see :func:`~monai_transfer.manifest.splits.assign_splits`.

    Patients without any labelled case go to ``unlabeled``. Splits that are given are kept; where a layout (not a table)
    gives training but no validation, validation is made from training. Patients that share an image bit for bit stay
    together. ``sums`` holds the checksum of every image file (or nothing), ``from_table`` tells who gave the splits.

    Raises:
        InputError: the fractions are none, or a patient is given two splits.
    """
    fractions, seed = options.fractions, options.seed
    given = [case.split for case in cases]
    labelled = {str(case.patient) for case in cases if case.label is not None}
    strata = _strata(cases, task)
    if any(given):
        # A given split is kept even where equal images stand in two; only patients bind.
        groups = [str(case.patient) for case in cases]
    else:
        groups = _groups(cases, sums, notes)
        labelled = {group for group, case in zip(groups, cases, strict=True) if str(case.patient) in labelled}
    known = {g for g, split in zip(groups, given, strict=True) if split}
    given = [
        split or (None if group in known or group in labelled else "unlabeled")
        for group, split in zip(groups, given, strict=True)
    ]
    splits = assign_splits(groups, strata, fractions=fractions, seed=seed, given=given)
    train, validation = fractions[0], fractions[1]
    layout_gave = known and not from_table and "training" in splits and "validation" not in splits and validation > 0
    if layout_gave:
        inside = [i for i, split in enumerate(splits) if split == "training" and cases[i].label is not None]
        whole = train + validation
        again = assign_splits(
            [groups[i] for i in inside],
            [strata[i] for i in inside],
            fractions=(train / whole, validation / whole, 0.0),
            seed=seed,
        )
        moved = {groups[i] for i, split in zip(inside, again, strict=True) if split == "validation"}
        splits = ["validation" if g in moved else s for g, s in zip(groups, splits, strict=True)]
        notes.append(f"the given splits hold no validation: {count(len(moved), 'patient')} taken for it from training")
    elif known:
        notes.append("the given splits were kept")
    return splits


def fold_cases(cases: Sequence[RawCase], splits: Sequence[str], task: Task, options: SplitOptions) -> dict[int, int]:
    """Case index -> fold, for all of training and validation, where folds were asked for."""
    if options.folds is None:
        return {}
    inside = [i for i, split in enumerate(splits) if split in ("training", "validation")]
    strata = _strata(cases, task)
    patients = [str(cases[i].patient) for i in inside]
    numbers = assign_folds(patients, [strata[i] for i in inside], folds=options.folds, seed=options.seed)
    return dict(zip(inside, numbers, strict=True))
