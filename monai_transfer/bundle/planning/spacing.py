"""The working spacing: the data's own, thick slices left alone, coarser only where a patch would see too little."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["THICK", "coarsened", "is_thick"]

THICK = 3.0
"""An axis this many times coarser than the finest is one of thick slices: it is never resampled finer."""
_SEEN = 0.25
_KEPT = {2: 16, 3: 64}


def is_thick(spacing: Sequence[float]) -> list[bool]:
    """By axis, whether its steps are those of thick slices."""
    finest = min(spacing)
    return [step >= THICK * finest for step in spacing]


def coarsened(
    spacing: Sequence[float], shape: Sequence[int], voxels: int, smallest: float | None
) -> tuple[list[float], str]:
    """The spacing at which a patch of ``voxels`` sees a quarter of the median image, and why.

    nnU-Net's rule for its low-resolution stage: below a quarter, a patch shows too little around a structure.
    The finest axes are made coarser together, so that voxels become more alike; an axis that is coarser already stays.
    It stops where the smallest structure would shrink to ``64`` voxels (16 in 2D).

    Args:
        spacing: the data's own, mm per axis (pixels of files without geometry count as 1).
        shape: of the median image at that spacing, voxels per axis.
        voxels: of a patch.
        smallest: median voxels of the smallest class at that spacing; ``None``: not known.

    >>> coarsened([1.0, 1.0, 1.0], [64, 64, 64], 48**3, None)[0]
    [1.0, 1.0, 1.0]
    >>> coarsened([0.5, 0.5, 5.0], [512, 512, 30], 48**3, None)[0]
    [2.13, 2.13, 5.0]
    """
    whole = math.prod(shape)
    if voxels >= _SEEN * whole:
        share = min(1.0, voxels / whole)
        return list(spacing), f"the data's median; a patch sees {share:.0%} of the median image"
    least = _KEPT[len(shape)]
    finest, found = min(spacing), list(spacing)
    while True:
        wider = [max(step, float(f"{finest:.3g}")) for step in spacing]
        factor = math.prod(new / old for new, old in zip(wider, spacing, strict=True))
        if smallest is not None and smallest / factor < least:
            why = f"coarser than the data's {_mm(spacing)}, as far as the smallest class keeps {least} voxels"
            return found, why if found != list(spacing) else "the data's median; coarser would lose the smallest class"
        found = wider
        if voxels * factor >= _SEEN * whole:
            return found, f"coarser than the data's {_mm(spacing)}, so that a patch sees a quarter of the median image"
        finest *= 1.03


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{step:g}" for step in spacing)
