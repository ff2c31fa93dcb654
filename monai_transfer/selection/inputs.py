"""Checks that every transferability score shares: finite features, one label a row, classes as 0..K-1."""

from __future__ import annotations

from typing import Any

import numpy as np

from monai_transfer.arrays import as_array
from monai_transfer.errors import InputError

__all__ = ["as_classes", "as_features", "as_labels", "as_probabilities", "is_regression"]


def as_features(features: Any, what: str = "features") -> np.ndarray:
    """``features`` as a finite N x D float64 array.

    Args:
        features: an array or tensor.
        what: the word for them in an error.

    Raises:
        InputError: not two-dimensional, empty, or holding NaN or infinity.

    >>> as_features([[1, 2], [3, 4]]).dtype, as_features([[1, 2], [3, 4]]).shape
    (dtype('float64'), (2, 2))
    """
    array = as_array(features).astype(np.float64, copy=False)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(
            f"{what} must be N x D with N, D >= 1, not of shape {array.shape}", hint="pool over space first"
        )
    if not np.isfinite(array).all():
        rows = np.flatnonzero(~np.isfinite(array).all(1))
        raise InputError(
            f"{what} hold NaN or infinity in {len(rows)} rows, the first is row {rows[0]}",
            hint="the network diverged, or an image holds NaN: run monai-transfer check",
        )
    return array


def as_labels(labels: Any, n: int) -> np.ndarray:
    """``labels`` as an array of N entries (N or, for several regression targets, N x K).

    Args:
        labels: N, or N x K.
        n: rows of the features.

    Raises:
        InputError: another length than the features, or missing (NaN) entries.

    >>> as_labels([[1], [2]], 2).tolist()
    [1, 2]
    """
    array = as_array(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or len(array) != n:
        raise InputError(
            f"labels of shape {array.shape} do not go with {n} rows of features", hint="give one label for each row"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError("labels hold NaN or infinity", hint="leave out the unlabelled rows")
    return array


def as_classes(labels: Any, n: int) -> tuple[np.ndarray, int]:
    """Class labels (integers, booleans, strings, or whole floats) as indices 0..K-1 of the K classes present, and K.

    Args:
        labels: one for each row.
        n: rows of the features.

    Raises:
        InputError: fewer than two classes, or labels that are no classes.

    >>> indices, count = as_classes(["benign", "malignant", "benign"], 3)
    >>> indices.tolist(), count
    ([0, 1, 0], 2)
    """
    array = as_labels(labels, n)
    if array.ndim != 1 or (array.dtype.kind == "f" and not (array == np.round(array)).all()):
        raise InputError("class labels must be one whole number or name a row", hint="use a regression score instead")
    classes, indices = np.unique(array, return_inverse=True)
    if len(classes) < 2:
        raise InputError(
            f"all {n} labels are {str(classes[0])!r}: a score needs at least two classes",
            hint="give cases of another class",
        )
    return indices, len(classes)


def as_probabilities(probabilities: Any) -> np.ndarray:
    """Class probabilities as a float64 N x Z array whose rows sum to one.

    Args:
        probabilities: N x Z.

    Raises:
        InputError: negative entries, or rows that do not sum to one (logits, for instance).

    >>> try:
    ...     as_probabilities([[3.0, -1.0]])
    ... except InputError as error:
    ...     print(error.hint)
    apply softmax first
    """
    array = as_features(probabilities, "source probabilities")
    if (array < -1e-6).any() or not np.allclose(array.sum(1), 1, atol=1e-3):
        raise InputError(
            "source probabilities must be non-negative with rows that sum to one", hint="apply softmax first"
        )
    return array.clip(0) / array.clip(0).sum(1, keepdims=True)


def is_regression(labels: Any) -> bool:
    """Whether labels are quantities rather than classes: a float dtype says so.

    Args:
        labels: an array, a tensor or a list.

    >>> import numpy as np
    >>> is_regression(np.array([0.5, 2.0])), is_regression(np.array([0, 1])), is_regression(["a", "b"])
    (True, False, False)
    """
    return as_array(labels).dtype.kind == "f"
