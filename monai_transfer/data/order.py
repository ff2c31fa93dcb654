"""The place of each case in an order of the target, from what is near the source to what is far, as one more key.

Methods that go along an order (``gradual_self_training``, ``dann`` with ``stages``) read it from their batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from scipy.stats import rankdata

from monai_transfer.errors import InputError

__all__ = ["with_order"]


def with_order(
    items: Iterable[Mapping[str, Any]], key: str = "acquired", near_to_far: Sequence[Any] | None = None
) -> list[dict[str, Any]]:
    """Data list items with ``order`` in [0, 1].

    Args:
        items: a data list, e.g. ``DataLists.target_unlabelled``.
        key: a column of numbers, such as the acquisition day: ``order`` is the rank in it, equals share one.
        near_to_far: instead, the values of ``key`` (sites, say) in their order: the k-th of K gets k / (K - 1).

    Raises:
        InputError: an item has no number under ``key``, or a value that ``near_to_far`` does not name.

    The latest acquisition is 1, the earliest 0:

    >>> scans = [{"image": "a", "acquired": 40}, {"image": "b", "acquired": 3}, {"image": "c", "acquired": 9}]
    >>> [(scan["image"], scan["order"]) for scan in with_order(scans)]
    [('a', 1.0), ('b', 0.0), ('c', 0.5)]
    """
    ordered = [dict(item) for item in items]
    if near_to_far is not None:
        places = {value: place / max(len(near_to_far) - 1, 1) for place, value in enumerate(near_to_far)}
        for item in ordered:
            if item.get(key) not in places:
                raise InputError(
                    f"case {item.get('case', '?')!r} has {key} {item.get(key)!r}, which has no place in the order",
                    hint=f"name it among {', '.join(map(str, near_to_far))}",
                )
            item["order"] = float(places[item[key]])
        return ordered
    for item in ordered:
        value = item.get(key)
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise InputError(f"case {item.get('case', '?')!r} has no number under {key!r}", hint="name another column")
    ranks = rankdata([item[key] for item in ordered], method="average")
    for item, rank in zip(ordered, ranks, strict=True):
        item["order"] = float((rank - 1) / max(len(ordered) - 1, 1))
    return ordered
