"""What a segmentation is worth that has not looked at the image: calling everything foreground, a blob in the middle;
and the best that the working grid allows. A network's Dice is read beside these.

Where images were cut about the structure, an ellipsoid in their middle can be better than any network. Its size is the
best over these very cases, so it is rather flattered: an arm that does not beat it shows nothing all the more.
The working grid's own limit is the true mask, brought to the grid that the network works on and back as a prediction
is: where that scores low, no training can score higher, and a finer spacing is what helps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample

__all__ = ["Guesses", "blob_dice", "grid_dice"]

SIZES = np.round(np.arange(0.1, 1.25, 0.05), 2)
"""Half axes of the ellipsoid, over half of the image's extent."""

_VOXELS = 2_000_000  # looked at of one image, evenly spaced
_GRID_CASES = 10


def blob_dice(mask: np.ndarray) -> np.ndarray:
    """Dice of a centred ellipsoid of each of ``SIZES``, then of calling everything foreground; NaN for an empty mask.

    Args:
        mask: boolean, of any number of dimensions.

    >>> mask = np.zeros((20, 20), bool)
    >>> mask[5:15, 5:15] = True
    >>> dice = blob_dice(mask)
    >>> bool(dice.max() > 0.85), round(float(dice[-1]), 2)
    (True, 0.4)
    """
    step = max(1, int(np.ceil((mask.size / _VOXELS) ** (1 / mask.ndim))))
    axes = [np.linspace(-1, 1, size)[::step] for size in mask.shape]
    seen = mask[tuple(slice(None, None, step) for _ in axes)]
    if not seen.any():
        return np.full(len(SIZES) + 1, np.nan)
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij", sparse=True)))
    edges = np.concatenate([[0.0], SIZES, [np.inf]])
    inside = np.cumsum(np.histogram(radius, edges)[0]).astype(float)
    both = np.cumsum(np.histogram(radius[seen], edges)[0]).astype(float)
    return 2 * both / (inside + float(seen.sum()))


def grid_dice(truth: MetaTensor, image: MetaTensor, classes: list[int]) -> dict[int, float]:
    """Dice of the true classes with themselves, after a way to the image's grid and back.

    There by nearest neighbour, as training labels go; back by linear interpolation and the largest, as predictions do.

    Args:
        truth: (1, spatial) label map on its own grid.
        image: (C, spatial) on the working grid.
        classes: values that are looked at; those that are not in the map are left out.
    """
    there = SpatialResample(mode="nearest", padding_mode="zeros")(
        truth.float(), dst_affine=image.affine, spatial_size=tuple(image.shape[1:])
    )
    values = [int(v) for v in np.unique(np.asarray(truth.cpu()))]
    parts = torch.cat([(there == value).float() for value in values])
    back = SpatialResample(mode="bilinear", padding_mode="border")(
        MetaTensor(parts.as_tensor() if isinstance(parts, MetaTensor) else parts, affine=image.affine),
        dst_affine=truth.affine,
        spatial_size=tuple(truth.shape[1:]),
    )
    best = np.asarray(back.argmax(0).cpu())
    known = np.asarray(truth[0].cpu())
    found = {}
    for value in classes:
        if value in values:
            a, b = known == value, best == values.index(value)
            found[value] = float(2 * (a & b).sum() / (a.sum() + b.sum()))
    return found


class Guesses:
    """Gathers both over the test cases of a segmentation.

    Args:
        labels: class names by value; 0 is the background.

    >>> guesses = Guesses({0: "background", 1: "lesion"})
    >>> guesses.to_dict()
    {}
    """

    def __init__(self, labels: Mapping[int, str]) -> None:
        self.labels = {value: name for value, name in labels.items() if value}
        self._blobs: dict[str, list[np.ndarray]] = {}
        self._grid: dict[str, list[float]] = {}
        self._looked = 0

    def add(self, truth: Any, image: Any) -> None:
        """Look at one case: its true label map (1, spatial), and the image (C, spatial) as the network saw it."""
        if truth.ndim < 3 or truth.shape[0] != 1:
            return
        known = np.asarray(truth[0].cpu() if isinstance(truth, torch.Tensor) else truth[0])
        for value, name in self.labels.items():
            if (mask := known == value).any():
                self._blobs.setdefault(name, []).append(blob_dice(mask))
        if self._looked >= _GRID_CASES or not (isinstance(truth, MetaTensor) and isinstance(image, MetaTensor)):
            return
        if image.ndim != truth.ndim:
            return
        same = tuple(image.shape[1:]) == tuple(truth.shape[1:])
        if same and np.allclose(np.asarray(image.affine), np.asarray(truth.affine), atol=1e-3):
            return  # it works on the image's own grid
        self._looked += 1
        for value, dice in grid_dice(truth.cpu(), image.cpu(), list(self.labels)).items():
            self._grid.setdefault(self.labels[value], []).append(dice)

    def to_dict(self) -> dict[str, Any]:
        """``blob`` and ``everything`` (mean Dice by class), the ``size`` of the blob, ``working_grid``; empty where no
        case has a mask."""
        if not self._blobs:
            return {}
        means = {name: np.mean(values, axis=0) for name, values in self._blobs.items()}
        sizes = {name: int(np.nanargmax(values[:-1])) for name, values in means.items()}
        found: dict[str, Any] = {
            "blob": {name: round(float(means[name][n]), 6) for name, n in sizes.items()},
            "size": {name: float(SIZES[n]) for name, n in sizes.items()},
            "everything": {name: round(float(values[-1]), 6) for name, values in means.items()},
        }
        if self._grid:
            found["working_grid"] = {name: round(float(np.mean(values)), 6) for name, values in self._grid.items()}
        return found
