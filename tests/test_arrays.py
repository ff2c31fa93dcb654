"""NumPy arrays of tensors that NumPy itself refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_transfer.arrays import as_array

FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.bool])
def test_any_precision_with_or_without_a_gradient(dtype):
    values = torch.tensor([0, 1, 1]).to(dtype).requires_grad_(dtype.is_floating_point)
    array = as_array(values)
    assert array.tolist() == [0, 1, 1]
    assert (array.dtype.kind == "f" and array.dtype.itemsize >= 4) == (dtype in FLOATS)


def test_other_things_as_numpy_takes_them():
    array = np.arange(3)
    assert as_array(array) is array
    assert as_array([1, 2]).tolist() == [1, 2]
