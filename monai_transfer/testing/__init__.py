"""The contracts of methods and strategies as functions, for those that live in other packages too.

``check_method(MyMethod)`` and ``check_strategy(MyStrategy)`` run in a test of yours what every one of ours passes; a
breach is an ``AssertionError`` that says what is expected.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "check_method": "monai_transfer.testing.methods",
    "check_strategy": "monai_transfer.testing.strategies",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
