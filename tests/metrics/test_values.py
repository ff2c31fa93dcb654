"""A predicted quantity beside the true one."""

from __future__ import annotations

import math

import pytest
import torch

from monai_transfer.errors import InputError
from monai_transfer.metrics.values import regression_case


def test_regression_of_one_case():
    row = regression_case(torch.tensor([2.5]), 3.0)
    assert (row["error"], row["absolute_error"], row["squared_error"]) == (-0.5, 0.5, 0.25)
    assert math.isnan(regression_case(1.0, None)["absolute_error"])
    with pytest.raises(InputError, match="NaN"):
        regression_case(float("nan"), 1.0)
