"""Predictions and labels as arrays, or refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from monai_transfer.arrays import as_array
from monai_transfer.errors import InputError

__all__ = ["finite_array", "scalar"]


def finite_array(values: Any, what: str, nan: bool = False) -> np.ndarray:
    """An array without NaN or infinity (unless ``nan`` allows them).

    Args:
        values: an array, a tensor or numbers.
        what: the word for them in an error.
        nan: let NaN pass, where it stands for "unknown".

    Raises:
        InputError: it holds some, named after ``what``.

    >>> finite_array([1.0, float("nan")], "label", nan=True).tolist()  # in a prediction it is refused
    [1.0, nan]
    """
    array = as_array(values)
    if not nan and array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        raise InputError(
            f"the {what} holds NaN or infinite values", hint="the network diverged: look at its training loss"
        )
    return array


def scalar(value: Any) -> float | None:
    """A label as a number; None, NaN and an empty tensor are no label.

    Args:
        value: a number, an array or tensor of one, or None.

    >>> scalar(3), scalar(float("nan"))
    (3.0, None)
    """
    array = as_array(value)
    if array.size != 1 or array.dtype == object or math.isnan(float(array.reshape(-1)[0])):
        return None
    return float(array.reshape(-1)[0])
