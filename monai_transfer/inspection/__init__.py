"""Reading every file of a data set, saying what is wrong and how to fix it, and whether a model suits it.

The names below are found when they are asked for, since reading images brings torch and commands should start fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_transfer.inspection.check import check_manifest, fix_manifest
    from monai_transfer.inspection.finding import Finding
    from monai_transfer.inspection.suitability import compare_with_source, describe_data

__all__ = ["Finding", "check_manifest", "compare_with_source", "describe_data", "fix_manifest"]

_WHERE = {
    "Finding": "finding",
    "check_manifest": "check",
    "fix_manifest": "check",
    "compare_with_source": "suitability",
    "describe_data": "suitability",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
