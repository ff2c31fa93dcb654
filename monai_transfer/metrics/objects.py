"""Objects of one class, such as nuclei or lesions: how many were found, and how many found ones are real.

Objects are connected components (voxels that share a corner belong together). Pairs of a true and a predicted object
are taken in the order of their IoU, each object once; a pair counts from an IoU of ``iou`` on. Sensitivity, precision
and F1 are those of all objects of all cases together, as in detection challenges; their intervals are over patients.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from monai_transfer.metrics.base import Metric, Rows, case_number

__all__ = ["OBJECT_METRICS", "ObjectCounts", "count_objects"]

_COLUMNS = ("objects_true", "objects_predicted", "objects_found")


class ObjectCounts(NamedTuple):
    """Numbers of true and predicted objects, and of pairs.

    >>> counts = ObjectCounts(true=4, predicted=5, found=3)
    >>> counts.found / counts.true, counts.found / counts.predicted  # sensitivity and precision
    (0.75, 0.6)
    """

    true: int
    predicted: int
    found: int


def count_objects(predicted: np.ndarray, true: np.ndarray, iou: float = 0.1) -> ObjectCounts:
    """Match the objects of two masks.

    Args:
        predicted, true: masks (H, W) or (H, W, D) of one shape, booleans.
        iou: from which on a predicted object has found a true one.

    >>> true = np.array([[1, 1, 0, 0, 1]], dtype=bool)
    >>> count_objects(np.array([[1, 0, 0, 0, 0]], dtype=bool), true, iou=0.5)
    ObjectCounts(true=2, predicted=1, found=1)
    """
    from scipy import ndimage

    structure = ndimage.generate_binary_structure(true.ndim, true.ndim)
    there, n_true = ndimage.label(true, structure)
    here, n_predicted = ndimage.label(predicted, structure)
    if not n_true or not n_predicted:
        return ObjectCounts(n_true, n_predicted, 0)
    both = (there > 0) & (here > 0)
    pairs, shared = np.unique(there[both].astype(np.int64) * (n_predicted + 1) + here[both], return_counts=True)
    t, p = np.divmod(pairs, n_predicted + 1)
    union = np.bincount(there.ravel())[t] + np.bincount(here.ravel())[p] - shared
    overlap = shared / union
    taken_true, taken_predicted, found = set(), set(), 0
    for k in np.argsort(-overlap, kind="stable"):
        if overlap[k] < iou:
            break
        if t[k] not in taken_true and p[k] not in taken_predicted:
            taken_true.add(t[k])
            taken_predicted.add(p[k])
            found += 1
    return ObjectCounts(n_true, n_predicted, found)


def _pooled(above: Any, below: Any):
    """A ratio of counts over all cases, of each class, and their mean over the classes that have one."""

    def of_set(rows: Rows, weights: np.ndarray) -> dict[str, np.ndarray]:
        start = f"{_COLUMNS[0]}_"
        values: dict[str, np.ndarray] = {}
        for part in [name.removeprefix(start) for name in rows[0] if name.startswith(start)]:
            counts = np.array([[case_number(row.get(f"{c}_{part}")) for c in _COLUMNS] for row in rows])
            true, predicted, found = (weights @ np.nan_to_num(counts)).T  # a class that was not looked for adds nothing
            total = below(true, predicted)
            values[part] = np.where(total > 0, above(found) / np.where(total > 0, total, 1.0), math.nan)
        if not values:
            return {}
        each = np.stack(list(values.values()))
        number = (~np.isnan(each)).sum(axis=0)
        mean = np.where(number > 0, np.nansum(each, axis=0) / np.maximum(number, 1), math.nan)
        return {"": mean} | values

    return of_set


_SHARE: dict[str, Any] = {"better": 1, "low": 0.0, "high": 1.0}

OBJECT_METRICS = [
    Metric(
        "object_sensitivity",
        "object sensitivity",
        "Share of the true objects (connected parts of a class) that a predicted object overlaps, over all cases: 1 is "
        "perfect.",
        of_set=_pooled(lambda found: found, lambda true, predicted: true),
        **_SHARE,
    ),
    Metric(
        "object_precision",
        "object precision",
        "Share of the predicted objects that overlap a true one, over all cases: 1 is perfect.",
        of_set=_pooled(lambda found: found, lambda true, predicted: predicted),
        **_SHARE,
    ),
    Metric(
        "object_f1",
        "object F1",
        "Balance of object sensitivity and precision: twice the objects found, over true and predicted ones together.",
        of_set=_pooled(lambda found: 2 * found, lambda true, predicted: true + predicted),
        **_SHARE,
    ),
]
"""Of a segmentation's cases; what they count is in the columns ``objects_true_<class>`` and so on."""
