"""Tensors (on any device, in any precision) and arrays as NumPy arrays."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

__all__ = ["as_array"]


def as_array(values: Any) -> np.ndarray:
    """An array of anything; of a tensor wherever it lies, learning or not.

    Halves become float32: NumPy has no bfloat16, and float16 sums overflow.
    """
    torch = sys.modules.get("torch")  # nothing is a tensor before torch was imported, which takes seconds
    if torch is not None and isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() and values.dtype.itemsize < 4 else values
    return np.asarray(values)
