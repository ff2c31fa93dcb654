"""Every planned number with its reason: printed by ``new``, kept in the bundle as ``configs/recipe.json``."""

from __future__ import annotations

from typing import Any

__all__ = ["Reasons", "short"]


class Reasons:
    """What was planned and why, in the order of planning.

    >>> reasons = Reasons()
    >>> reasons.add("batch_size", 4, "what the memory holds")
    4
    >>> print(*reasons.lines(), sep="")
    batch_size 4: what the memory holds
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[Any, str]] = {}

    def add(self, name: str, value: Any, why: str) -> Any:
        """Keep a value and its reason; gives the value back."""
        self._found[name] = (value, why)
        return value

    def why(self, name: str) -> str:
        """The reason of one value, empty where none was given."""
        return self._found[name][1] if name in self._found else ""

    def lines(self) -> list[str]:
        """One line each, for people."""
        return [f"{name} {short(value)}: {why}" for name, (value, why) in self._found.items()]

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """For JSON: ``{name: {"value": ..., "reason": ...}}``."""
        return {name: {"value": value, "reason": why} for name, (value, why) in self._found.items()}


def short(value: Any) -> str:
    """A value for a line of text: ``48 x 48 x 40``."""
    if isinstance(value, (list, tuple)):
        return " x ".join(map(short, value)) if all(isinstance(v, (int, float)) for v in value) else str(list(value))
    return f"{value:g}" if isinstance(value, float) else str(value)
