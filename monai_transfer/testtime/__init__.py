"""Adaptation at test time, from target images alone.

``from monai_transfer.testtime import Tent`` imports that one file, when it is asked for.
"""

from __future__ import annotations

from typing import Any

from monai_transfer.discovery import class_name, file_names, lazy_class

_BASE = ("SourceFree",)


def __getattr__(name: str) -> Any:
    return lazy_class("testtime", name, _BASE)


def __dir__() -> list[str]:
    return sorted([*globals(), *_BASE, *map(class_name, file_names("testtime"))])
