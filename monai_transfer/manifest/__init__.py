"""Manifests: what the data are, where they lie, whose they are, and which part each plays.

The names below are found when they are asked for: reading layouts brings ITK, and commands should start fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_transfer.manifest.build import build_manifest
    from monai_transfer.manifest.merge import merge_manifests
    from monai_transfer.manifest.model import Case, Manifest, select_labelled

__all__ = ["Case", "Manifest", "build_manifest", "merge_manifests", "select_labelled"]

_WHERE = {
    "Case": "model",
    "Manifest": "model",
    "select_labelled": "model",
    "build_manifest": "build",
    "merge_manifests": "merge",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
