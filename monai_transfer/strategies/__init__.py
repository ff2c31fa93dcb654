"""Strategies, one file each: which parameters learn, how fast, when.

``from monai_transfer.strategies import Lora`` imports that one file, when it is asked for.
"""

from __future__ import annotations

from typing import Any

from monai_transfer.discovery import class_name, file_names, lazy_class

_BASE = ("Strategy",)


def __getattr__(name: str) -> Any:
    return lazy_class("strategies", name, _BASE)


def __dir__() -> list[str]:
    return sorted([*globals(), *_BASE, *map(class_name, file_names("strategies"))])
