"""Augmentation: presets in millimetres, and the random transforms that MONAI lacks; one file per idea.

Names are found when they are asked for: ``from monai_transfer.data.augmentation import RandGINd, preset``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACES = {
    "MINDSSC": "mind",
    "MINDSSCd": "mind",
    "Mixed": "mixed",
    "RandAppearanceCurve": "curves",
    "RandAppearanceCurved": "curves",
    "RandContrastInversion": "inversion",
    "RandContrastInversiond": "inversion",
    "RandGIN": "gin",
    "RandGINd": "gin",
    "RandHue": "hue",
    "RandHued": "hue",
    "RandPhysicalAffine": "spatial",
    "RandPhysicalAffined": "spatial",
    "RandPhysicalLowResolution": "resolution",
    "RandPhysicalLowResolutiond": "resolution",
    "RandStain": "stain",
    "RandStaind": "stain",
    "as_transforms": "presets",
    "mirror_axes": "mirroring",
    "RandRelativeNoise": "noise",
    "RandRelativeNoised": "noise",
    "RandSideFlipd": "side_flip",
    "preset": "presets",
}

__all__ = sorted(_PLACES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
