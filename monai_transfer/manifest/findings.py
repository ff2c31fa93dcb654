"""Cases with several findings: which one stands for a case where cases are shared out or taken in turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["rarest_finding"]


def rarest_finding(labels: Sequence[Any]) -> list[Any]:
    """For each label one value to group by: of several findings the rarest that is present, so that no split lacks it.

    Args:
        labels: of each case; ``{finding: 1, 0 or None}``, or any single value, which stays as it is.

    Returns:
        As many values; ``"no finding"`` where none is present.

    Example:
        >>> rarest_finding([{"oedema": 1, "effusion": 1}, {"oedema": 1, "effusion": 0}, {"oedema": 0}])
        ['effusion', 'oedema', 'no finding']
    """
    counts = Counter(name for label in labels if isinstance(label, Mapping) for name, v in label.items() if v == 1)

    def one(label: Any) -> Any:
        if not isinstance(label, Mapping):
            return label
        present = [name for name, value in label.items() if value == 1]
        return min(present, key=lambda name: (counts[name], name)) if present else "no finding"

    return [one(label) for label in labels]
