"""From a mask or a map of probabilities to boxes: one per connected component, with a score.

A box is a row ``(low_0, .., low_d-1, high_0, .., high_d-1)`` of voxel indices, ``high`` one past the last voxel:
MONAI's ``StandardMode``, so that ``monai.data.box_utils`` and ``monai.apps.detection`` take it as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from monai_transfer.arrays import as_array
from monai_transfer.errors import InputError

__all__ = ["SCORES", "Boxes", "boxes_from_labels", "boxes_from_probabilities"]

SCORES = ("mean", "max")


class Boxes(NamedTuple):
    """N boxes of one image, the highest score first.

    Attributes:
        voxels: (N, 2 d) integers, see the module.
        scores: (N,) from 0 to 1; 1 for the truth.
        labels: (N,) class of each, never 0.
        sizes: (N,) how much space the component itself fills, mm3 (mm2 in 2D).

    >>> label = np.zeros((8, 8), dtype=np.uint8)
    >>> label[1:3, 1:4] = 1
    >>> found = boxes_from_labels(label, spacing=[0.5, 0.5])
    >>> found.voxels.tolist(), found.sizes.tolist()  # rows 1 to 2, columns 1 to 3: six pixels of 0.25 mm2
    ([[1, 1, 3, 4]], [1.5])
    """

    voxels: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:  # of boxes, not of fields
        return len(self.voxels)


def boxes_from_labels(
    labels: Any, spacing: Sequence[float] | None = None, *, min_size: float = 0.0, connectivity: int | None = None
) -> Boxes:
    """The boxes of a label map's components: each class by itself, 0 is background. Scores are 1.

    Args:
        labels: (H, W) or (H, W, D), or the same with a leading channel of 1 where ``spacing`` tells the axes.
        spacing: of a voxel, mm per axis; default 1.
        min_size: components smaller than this, mm3 (mm2 in 2D), are left out.
        connectivity: 1: voxels that share a face belong together; d: also those that share a corner (default).

    Raises:
        InputError: the map is not 2D or 3D, or holds values that are not whole numbers.

    >>> import numpy as np
    >>> from monai_transfer.localization.boxes import boxes_from_labels
    >>> labels = np.zeros((8, 8), int)
    >>> labels[1:3, 1:4] = 1
    >>> boxes_from_labels(labels).voxels  # first row and column, then one past the last
    array([[1, 1, 3, 4]])
    """
    array = as_array(labels)
    if spacing is not None and array.ndim == len(spacing) + 1 and array.shape[0] == 1:
        array = array[0]
    if array.ndim not in (2, 3):
        raise InputError(f"a label map of {array.ndim} axes: it takes 2 or 3", hint="take away the channel axis")
    if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        raise InputError(
            "the label map holds values that are not whole", hint="for probabilities: boxes_from_probabilities"
        )
    classes = [int(v) for v in np.unique(array) if v != 0]
    parts = [(value, (array == value), None) for value in classes]
    return _collect(parts, array.ndim, spacing, min_size, connectivity, "max")


def boxes_from_probabilities(
    probabilities: Any,
    spacing: Sequence[float] | None = None,
    *,
    threshold: float = 0.5,
    min_size: float = 0.0,
    connectivity: int | None = None,
    score: str = "mean",
) -> Boxes:
    """The boxes of the places where a class is probable.

    Args:
        probabilities: (C, H, W) or (C, H, W, D). C > 1: channel 0 is the background, each other channel a class;
            C = 1: a map of the one class 1.
        spacing, min_size, connectivity: as in :func:`boxes_from_labels`.
        threshold: a component is where the probability is at least this.
        score: of a box: ``mean`` or ``max`` of the probability inside its component.

    Raises:
        InputError: a value is NaN, infinite or no probability, the axes or the kind of score do not fit.

    >>> import numpy as np
    >>> from monai_transfer.localization.boxes import boxes_from_probabilities
    >>> probabilities = np.zeros((2, 8, 8))
    >>> probabilities[1, 2:4, 2:4] = 0.8
    >>> found = boxes_from_probabilities(probabilities)
    >>> len(found), found.scores.round(2)
    (1, array([0.8]))
    """
    array = as_array(probabilities)
    if array.ndim not in (3, 4):
        raise InputError(
            f"probabilities of {array.ndim} axes: it takes a channel and 2 or 3 axes", hint="put the channel first"
        )
    if score not in SCORES:
        raise InputError(f"score {score!r} is not one of {', '.join(SCORES)}", hint="see boxes_from_probabilities")
    if not np.isfinite(array).all():
        raise InputError("the probabilities hold NaN or infinite values", hint="the network diverged")
    if array.size and (array.min() < -1e-3 or array.max() > 1 + 1e-3):
        raise InputError(
            f"values from {array.min():.3g} to {array.max():.3g} are no probabilities", hint="apply softmax or sigmoid"
        )
    first = 1 if len(array) > 1 else 0
    parts = [(c + 1 - first, array[c] >= threshold, array[c]) for c in range(first, len(array))]
    return _collect(parts, array.ndim - 1, spacing, min_size, connectivity, score)


def _collect(
    parts: Sequence[tuple[int, np.ndarray, np.ndarray | None]],
    dims: int,
    spacing: Sequence[float] | None,
    min_size: float,
    connectivity: int | None,
    score: str,
) -> Boxes:
    step = np.ones(dims) if spacing is None else np.asarray(spacing, dtype=float)
    if step.shape != (dims,) or not np.all(np.isfinite(step)) or np.any(step <= 0):
        raise InputError(
            f"spacing {np.asarray(spacing).tolist()} is not a positive number of mm for each of {dims} axes",
            hint="such as (1.0, 1.0, 3.0)",
        )
    connectivity = dims if connectivity is None else connectivity
    if not 1 <= connectivity <= dims:
        raise InputError(f"connectivity {connectivity} is not from 1 to {dims}", hint="1 joins by faces alone")
    structure = ndimage.generate_binary_structure(dims, connectivity)
    voxels, scores, labels, sizes = [], [], [], []
    for value, mask, weight in parts:
        components, count = ndimage.label(mask, structure)
        for index, place in enumerate(ndimage.find_objects(components, count), start=1):
            inside = components[place] == index
            size = float(np.count_nonzero(inside) * step.prod())
            if size < min_size:
                continue
            values = None if weight is None else weight[place][inside]
            voxels.append([s.start for s in place] + [s.stop for s in place])
            scores.append(1.0 if values is None else float(values.max() if score == "max" else values.mean()))
            labels.append(value)
            sizes.append(size)
    order = np.argsort([-s for s in scores], kind="stable")
    return Boxes(
        np.array(voxels, dtype=np.int64).reshape(-1, 2 * dims)[order],
        np.array(scores, dtype=float)[order],
        np.array(labels, dtype=np.int64)[order],
        np.array(sizes, dtype=float)[order],
    )
