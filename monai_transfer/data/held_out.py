"""Labelled cases dealt into parts by patient, so that arms can be scored on cases that they did not learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["deal_patients"]


def deal_patients(items: Sequence[Mapping[str, Any]], parts: int, seed: int = 0) -> list[list[dict[str, Any]]]:
    """The cases in ``parts`` lists: no patient stands in two, and each gets its share of every class or value.

    Patients are put in order by their label (its mean over their cases, where it is a number; a mask has none),
    patients of equal labels in a random order, and dealt out in turn.

    Args:
        items: of a data list, with ``patient`` and ``label``.
        parts: how many.
        seed: of the order.

    >>> items = [{"patient": p, "label": n} for p, n in (("a", 0), ("b", 0), ("c", 1), ("d", 1), ("a", 0))]
    >>> [sorted({str(item["label"]) for item in part}) for part in deal_patients(items, 2)]
    [['0', '1'], ['0', '1']]
    """
    labels: dict[str, list[float]] = {}
    for item in items:
        value = item.get("label")
        known = isinstance(value, (int, float)) and not isinstance(value, bool)
        labels.setdefault(str(item["patient"]), []).append(float(value) if known else 0.0)  # type: ignore[arg-type]
    patients = sorted(labels)
    order = [patients[n] for n in np.random.default_rng([seed, 15]).permutation(len(patients))]
    order.sort(key=lambda patient: float(np.mean(labels[patient])))  # stable: equal ones stay shuffled
    part_of = {patient: number % parts for number, patient in enumerate(order)}
    found: list[list[dict[str, Any]]] = [[] for _ in range(parts)]
    for item in items:
        found[part_of[str(item["patient"])]].append(dict(item))
    return found
