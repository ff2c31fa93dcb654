"""Splitting cases so that no patient stands on two sides, with every label and site shared out fairly."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from monai_transfer.errors import InputError

__all__ = ["assign_folds", "assign_splits"]

_NAMES = ("training", "validation", "test")
_MAX_FOLDS = 20


def assign_splits(
    patients: Sequence[str],
    strata: Sequence[Hashable],
    *,
    fractions: Sequence[float] = (0.6, 0.15, 0.25),
    seed: int = 0,
    given: Sequence[str | None] | None = None,
) -> list[str]:
    """A split (``training``, ``validation`` or ``test``) for every case; all cases of a patient get the same.

    A patient's stratum is the set of the strata of its cases, so one that holds both classes is a stratum of its own
    kind. Strata with enough patients are shared out by scikit-learn's ``StratifiedGroupKFold``. Smaller ones are dealt
    out together, patient by patient in an order drawn by the seed, each to the split that is then most behind its
    fraction. With at least three patients no wanted split stays empty.

    Args:
        patients: the patient of every case.
        strata: of every case, e.g. ``(site, label)``.
        fractions: of training, validation and test; their sum is 1.
        seed: the same seed gives the same splits, whatever the order of the cases.
        given: the split of every case where it is known beforehand, else ``None``; binds the whole patient.

    Raises:
        InputError: the fractions are no fractions, or ``given`` puts a patient into two splits.
    """
    _check_fractions(fractions)
    known = _given(patients, given or [None] * len(patients))
    free = [i for i, patient in enumerate(patients) if patient not in known]
    stratum = _patient_strata([patients[i] for i in free], [strata[i] for i in free])
    train, validation, test = fractions
    shares = [test, validation / (1 - test) if test < 1 else 0.0]
    result: dict[str, str] = {}
    large = {name for name, members in _members(stratum).items() if _enough(len(members), shares)}
    rest = {patient: name for patient, name in stratum.items() if name in large}
    weights = {patient: patients.count(patient) for patient in rest} if len(set(patients)) < len(patients) else None
    for name, share in zip(("test", "validation"), shares, strict=True):
        taken = _take(rest, weights, share, seed)
        result |= dict.fromkeys(taken, name)
        rest = {patient: s for patient, s in rest.items() if patient not in taken}
    result |= dict.fromkeys(rest, "training")
    result |= _deal(
        {p: s for p, s in stratum.items() if s not in large}, dict(zip(_NAMES, fractions, strict=True)), seed
    )
    _fill_empty(result, fractions, known, seed)
    result |= known
    return [result[patient] for patient in patients]


def assign_folds(patients: Sequence[str], strata: Sequence[Hashable], *, folds: int, seed: int = 0) -> list[int]:
    """A cross-validation fold, 0 to ``folds`` - 1, for every case; all cases of a patient get the same.

    Raises:
        InputError: fewer than two folds, or fewer patients than folds.
    """
    stratum = _patient_strata(patients, strata)
    if not 2 <= folds <= len(stratum):
        hint = f"ask for 2 to {len(stratum)} folds" if len(stratum) > 1 else "cross-validation needs more patients"
        raise InputError(f"{folds} folds cannot be made of {len(stratum)} patients", hint=hint)
    large = {name for name, members in _members(stratum).items() if len(members) >= folds}
    result: dict[str, Any] = {}
    pool = {patient: name for patient, name in stratum.items() if name in large}
    if pool:
        weights = {patient: patients.count(patient) for patient in pool} if len(stratum) < len(patients) else None
        for fold, members in enumerate(_kfold(pool, weights, folds, seed)):
            result |= dict.fromkeys(members, fold)
    small = {patient: name for patient, name in stratum.items() if name not in large}
    result |= _deal(small, dict.fromkeys(range(folds), 1 / folds), seed)
    return [result[patient] for patient in patients]


def _check_fractions(fractions: Sequence[float]) -> None:
    if len(fractions) != 3 or any(not 0 <= f <= 1 for f in fractions) or abs(sum(fractions) - 1) > 1e-6:
        shown = ", ".join(f"{f:g}" for f in fractions)
        hint = "give three (training, validation, test) that sum to 1, e.g. 0.6, 0.15, 0.25"
        raise InputError(f"{shown} are no fractions of a whole", hint=hint)


def _given(patients: Sequence[str], given: Sequence[str | None]) -> dict[str, str]:
    known: dict[str, str] = {}
    for patient, split in zip(patients, given, strict=True):
        if split is not None and known.setdefault(patient, split) != split:
            raise InputError(
                f"patient {patient!r} stands in two given splits, {known[patient]} and {split}",
                hint="keep all cases of a patient in one split",
            )
    return known


def _patient_strata(patients: Sequence[str], strata: Sequence[Hashable]) -> dict[str, str]:
    """Patient -> name of its stratum, sorted by patient so that the order of the cases does not matter."""
    found: dict[str, set[Hashable]] = {}
    for patient, stratum in zip(patients, strata, strict=True):
        found.setdefault(patient, set()).add(stratum)
    return {patient: repr(sorted(map(repr, found[patient]))) for patient in sorted(found)}


def _members(stratum: dict[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for patient, name in stratum.items():
        groups.setdefault(name, []).append(patient)
    return groups


def _share(fraction: float) -> tuple[int, int]:
    """Folds to take and folds to make, so that their ratio is near ``fraction`` with few folds."""
    options = [(round(fraction * k), k) for k in range(2, _MAX_FOLDS + 1)]
    return min(options, key=lambda o: (abs(o[0] / o[1] - fraction) > 0.01, o[1] if o[0] else _MAX_FOLDS + 1))


def _enough(n_patients: int, shares: Sequence[float]) -> bool:
    """Whether a stratum has a patient for every fold that is made of it, one share after the other."""
    left = float(n_patients)
    for share in shares:
        if 0 < share < 1:
            if left < _share(share)[1]:
                return False
            left *= 1 - share
    return left >= 1 or any(share == 1 for share in shares)


def _take(stratum: dict[str, str], weights: dict[str, int] | None, fraction: float, seed: int) -> set[str]:
    if not stratum or fraction <= 0:
        return set()
    if fraction >= 1 - 1e-9:
        return set(stratum)
    take, make = _share(fraction)
    if make > len(stratum):  # a share taken before left fewer patients than was foreseen
        take, make = round(fraction * len(stratum)), len(stratum)
    if make < 2:
        return set()
    folds = _kfold(stratum, weights, make, seed)
    # Folds of few patients differ in size: those that come nearest to the fraction are taken.
    rings = [[p for k in range(take) for p in folds[(start + k) % make]] for start in range(make)]
    sizes = [abs(len(members) - fraction * len(stratum)) for members in rings]
    return set(rings[sizes.index(min(sizes))])


def _kfold(stratum: dict[str, str], weights: dict[str, int] | None, folds: int, seed: int) -> list[list[str]]:
    names = list(stratum)
    rows = np.repeat(np.arange(len(names)), [weights[n] if weights else 1 for n in names])
    classes = np.unique([stratum[name] for name in names], return_inverse=True)[1]
    if np.bincount(classes[rows]).max() < folds:
        classes = np.zeros_like(classes)  # too few of every stratum: grouped only
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # After the first share a stratum may have fewer patients than folds; its folds are then merely less even.
        warnings.simplefilter("ignore", UserWarning)
        parts = splitter.split(rows, classes[rows], groups=rows)
        return [[names[i] for i in np.unique(rows[chosen])] for _, chosen in parts]


def _deal(stratum: dict[str, str], fractions: dict[Any, float], seed: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    order = [p for members in _members(stratum).values() for p in generator.permutation(members).tolist()]
    counts = dict.fromkeys(fractions, 0)
    result = {}
    for dealt, patient in enumerate(order, start=1):
        split = max(fractions, key=lambda name: fractions[name] * dealt - counts[name])
        counts[split] += 1
        result[patient] = split
    return result


def _fill_empty(result: dict[str, Any], fractions: Sequence[float], known: dict[str, str], seed: int) -> None:
    """Move single patients so that a wanted split is not empty, where there are patients enough."""
    wanted = [name for name, fraction in zip(_NAMES, fractions, strict=True) if fraction > 0]
    generator = np.random.default_rng(seed)
    for name in wanted:
        if name in result.values() or name in known.values():
            continue
        groups = {other: [p for p in sorted(result) if result[p] == other] for other in wanted}
        donor = max(groups, key=lambda other: len(groups[other]))
        if len(groups[donor]) > 1:
            result[groups[donor][generator.integers(len(groups[donor]))]] = name
