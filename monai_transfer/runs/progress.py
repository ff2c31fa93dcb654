"""How far a training is, for whoever wants to know: a study hears so of the runs in its worker processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["listening", "tell"]

_listeners: list[Callable[[dict[str, Any]], None]] = []


def tell(**facts: Any) -> None:
    """Tell the listeners of this process: ``epoch``, ``epochs``, ``metric``, ``score``, ``best``."""
    for listener in _listeners:
        listener(facts)


@contextmanager
def listening(listener: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Have ``listener`` called with the facts of each epoch that ends within the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            _listeners.remove(listener)
