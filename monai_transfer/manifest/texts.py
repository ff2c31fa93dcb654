"""What several sets say of one thing, such as their licence or modality, in one text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["JOINED", "joined_texts"]

JOINED = ("licence", "reference", "modality")
"""What is listed together of several sets: the first one's alone would be wrong for the others."""


def joined_texts(values: Iterable[str | Mapping[str, str] | None]) -> str | dict[str, str] | None:
    """Each different value once, behind semicolons; one that all share as it is; ``None`` where there is none.

    Args:
        values: texts, or texts by channel.

    >>> joined_texts(["CT", None, "MR", "CT"]), joined_texts([{"0": "PET", "1": "CT"}, "MR"]), joined_texts([None])
    ('CT; MR', 'PET, CT; MR', None)
    """
    distinct: list[str | Mapping[str, str]] = []
    for value in values:
        if value and value not in distinct:
            distinct.append(value)
    if len(distinct) == 1:
        return distinct[0] if isinstance(distinct[0], str) else dict(distinct[0])
    return "; ".join(value if isinstance(value, str) else ", ".join(value.values()) for value in distinct) or None
