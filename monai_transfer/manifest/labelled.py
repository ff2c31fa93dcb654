"""Choosing few labelled cases: the same for the same seed, and nested, so that 3 cases are a part of 5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.manifest.case import Case
from monai_transfer.manifest.findings import rarest_finding
from monai_transfer.tasks import get_task

__all__ = ["select_labelled"]

T = TypeVar("T", bound=Case)


def select_labelled(cases: Sequence[T], n: int, seed: int = 0, task: str = "segmentation") -> list[T]:
    """The first ``n`` labelled cases in an order that depends on ``seed`` and the case names alone.

    The order visits every patient once before any patient a second time. For classification it takes the classes in
    turn (in an order drawn by the seed), so every prefix is as balanced as the data allow; of several findings the
    rarest that is present counts. A smaller ``n`` with the
    same seed always gives a subset.

    Args:
        cases: what to choose from; cases without a label are passed over.
        n: number of cases, 0 or more.
        seed: of the order.
        task: the manifest's task; balanced by class where cases have classes.

    Raises:
        InputError: fewer than ``n`` cases have a label, or ``n`` is negative.

    One of each class, and the same one again where two are asked for:

    >>> from monai_transfer.manifest.case import Case
    >>> cases = [Case(f"{n}.png", case=f"c{n}", patient=f"p{n}", site="x", label=n % 2) for n in range(6)]
    >>> one, two = (select_labelled(cases, n, seed=1, task="classification") for n in (1, 2))
    >>> two[0] == one[0], sorted(case.label for case in two)
    (True, [0, 1])
    """
    pool = sorted((case for case in cases if case.label is not None), key=lambda case: case.case)
    if n < 0:
        raise InputError(f"cannot choose {n} labelled cases", hint="ask for 0 or more")
    if n > len(pool):
        raise InputError(f"{n} labelled cases were asked for, but only {len(pool)} are there", hint="ask for fewer")
    generator = np.random.default_rng(seed)
    pool = [pool[i] for i in generator.permutation(len(pool))]
    by_class = get_task(task).classes_of_cases
    queues: dict[object, list[T]] = {}
    for case, group in zip(pool, rarest_finding([case.label for case in pool]), strict=True):
        queues.setdefault(group if by_class else None, []).append(case)
    keys = sorted(queues, key=str)
    turn = [queues[keys[i]] for i in generator.permutation(len(keys))]
    chosen: list[T] = []
    visits: dict[str, int] = {}
    while len(chosen) < n:
        for queue in turn:
            if queue and len(chosen) < n:
                # min keeps the first of equals: the least visited patient, then the drawn order
                case = min(queue, key=lambda c: visits.get(c.patient, 0))
                queue.remove(case)
                visits[case.patient] = visits.get(case.patient, 0) + 1
                chosen.append(case)
    return chosen
