"""Adaptation methods, one file each; ``base`` holds what they keep to.

``from monai_transfer.methods import Dann`` imports that one file, when it is asked for.
"""

from __future__ import annotations

from typing import Any

from monai_transfer.discovery import class_name, file_names, lazy_class

_BASE = ("Fields", "Method", "TeacherMethod")


def __getattr__(name: str) -> Any:
    return lazy_class("methods", name, _BASE)


def __dir__() -> list[str]:
    return sorted([*globals(), *_BASE, *map(class_name, file_names("methods"))])
