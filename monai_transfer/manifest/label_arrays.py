"""Label arrays of NumPy and torch alike: whole numbers out of stored values, and look-up tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from monai_transfer.errors import InputError

__all__ = ["NEAR", "module_of", "rounded", "take"]

NEAR = 0.01
"""How far a stored value may be from a whole number: masks scaled by ``scl_slope`` hold 1.0000153 for 1."""


def module_of(values: Any) -> Any:
    """NumPy, or torch where ``values`` is a tensor (imported already, then)."""
    if type(values).__module__.split(".")[0] in ("torch", "monai"):
        import torch

        return torch
    return np


def rounded(values: Any) -> tuple[Any, Any, Any]:
    """The array module, ``values`` as whole numbers, and what gives a result the kind that ``values`` has.

    Raises:
        InputError: a value is no whole number.
    """
    xp = module_of(values)
    array: Any = values if xp is not np else np.asarray(values)
    floating = array.dtype.is_floating_point if xp is not np else array.dtype.kind == "f"
    if floating:
        near = xp.round(array)
        if not bool((abs(array - near) <= NEAR).all()):
            odd = array[~(abs(array - near) <= NEAR)].reshape(-1)[0]
            hint = "make the mask again without interpolation (nearest neighbour)"
            raise InputError(f"the label holds {float(odd):g}, which is no whole number", hint=hint)
        array, kind = near, array.dtype
    whole = array.long() if xp is not np else array.astype(np.int64)

    def keep(result: Any) -> Any:
        if not floating:
            return result
        return result.to(kind) if xp is not np else result.astype(kind)

    return xp, whole, keep


def take(xp: Any, table: np.ndarray, index: Any) -> Any:
    """``table[index]`` in the array module of ``index``."""
    if xp is np:
        return table[index]
    # torch has no uint16 arithmetic; int32 holds every value that a table can have
    held = table.astype(np.int32) if table.dtype == np.uint16 else table
    return xp.from_numpy(held).to(index.device)[index]
