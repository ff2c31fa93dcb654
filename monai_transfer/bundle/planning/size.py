"""What a size of network may use: features, voxels of a patch, memory of a step."""

from __future__ import annotations

from dataclasses import dataclass

from monai_transfer.errors import InputError

__all__ = ["SIZES", "Size", "get_size"]


@dataclass(frozen=True)
class Size:
    """One size.

    Attributes:
        name: of the size.
        features: of a U-Net's first level, by dimensions; doubled from level to level.
        most_features: of the deepest levels.
        levels: below the first, at most.
        voxels: of a patch, by dimensions.
        memory: of one training step, GiB.
        growth: of a DenseNet.
        blocks: layers of a DenseNet's blocks.
        longest: voxels of a whole image's longest axis (classification, regression).
    """

    name: str
    features: dict[int, int]
    most_features: int
    levels: int
    voxels: dict[int, int]
    memory: float
    growth: int
    blocks: list[int]
    longest: int


SIZES = {
    size.name: size
    for size in (
        Size("small", {2: 16, 3: 8}, 128, 4, {2: 128**2, 3: 48**3}, 2.0, 8, [2, 4, 4], 64),
        Size("medium", {2: 32, 3: 16}, 256, 5, {2: 256**2, 3: 96**3}, 10.0, 16, [4, 8, 8], 224),
        Size("large", {2: 32, 3: 32}, 512, 6, {2: 512**2, 3: 128**3}, 30.0, 32, [6, 12, 24, 16], 224),
    )
}
"""By name; ``small`` is quick on two cores."""


def get_size(name: str) -> Size:
    """The size of that name.

    Raises:
        InputError: there is none.
    """
    if name not in SIZES:
        raise InputError(f"no network size {name!r}", hint=f"one of {', '.join(SIZES)}")
    return SIZES[name]
