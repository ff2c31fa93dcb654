"""Arguments of older MONAI versions that public bundles still use, under their names of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["translate"]

_RENAMED = {"dimensions": "spatial_dims", "pos_embed": "proj_type"}
_GONE = {
    # SwinUNETR took the size of its patches until MONAI 1.5 and only checked it
    "SwinUNETR": {"img_size": "MONAI takes no img_size any more; it changed no value"},
}
_NO_POSITION = {"pos_embed"}


def translate(name: str, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Arguments of the class ``name`` as MONAI takes them today, and a note for each that was changed.

    >>> translate("SwinUNETR", {"img_size": 96, "in_channels": 1})[0]
    {'in_channels': 1}
    """
    kept: dict[str, Any] = {}
    notes: list[str] = []
    for key, value in arguments.items():
        gone = _GONE.get(name, {}).get(key)
        if gone is not None:
            notes.append(gone)
        elif key in _RENAMED and _RENAMED[key] not in arguments and _renamed(name, key):
            kept[_RENAMED[key]] = value
            notes.append(f"{key} is {_RENAMED[key]} today")
        else:
            kept[key] = value
    return kept, notes


def _renamed(name: str, key: str) -> bool:
    return key not in _NO_POSITION or name in ("UNETR", "ViT", "ViTAutoEnc")
