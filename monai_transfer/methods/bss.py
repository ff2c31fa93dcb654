"""BSS: shrink the smallest singular values of the feature batch, along which transfer does harm.

    L = eta * sum_{i=1..k} sigma_{-i}^2

with sigma_{-i} the i-th smallest singular value of the B x F matrix of features.

Paper: Chen, Wang, Fu, Long and Wang, Catastrophic Forgetting Meets Negative Transfer: Batch Spectral Shrinkage for Safe
Transfer Learning, NeurIPS 2019

It is an addition to any other regulariser (the paper pairs it with L2-SP among others). At least one singular value is
always left alone, so k is at most B - 1 and a batch of one case gives 0; larger batches say more. The features are the
trainer's own forward pass: norm statistics are untouched.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.outputs import at_least_float32

__all__ = ["Bss", "bss_penalty"]


def bss_penalty(features: Tensor, k: int = 1) -> Tensor:
    """Sum of the ``k`` smallest squared singular values of B x F features; a scalar, without eta.

    ``k`` is cut to min(B, F) - 1, so that the largest is never shrunk. NaN where the features are not finite.

    Args:
        features: B x F.
        k: how many singular values are shrunk.

    Raises:
        InputError: the features are not two-dimensional, or k is below 1.

    >>> import torch
    >>> from monai_transfer.methods.bss import bss_penalty
    >>> bss_penalty(torch.diag(torch.tensor([3.0, 2.0])))  # the square of the smaller singular value
    tensor(4.)
    """
    if features.ndim != 2 or k < 1:
        raise InputError(
            f"BSS needs B x F features and k >= 1, got {tuple(features.shape)} and k = {k}",
            hint="pool the features first, and give k=1 or more",
        )
    with torch.autocast(features.device.type, enabled=False):
        rows = at_least_float32(features)
        if not torch.isfinite(rows).all():
            return (rows * math.nan).sum()  # for whoever watches the loss; LAPACK would raise an unrelated error
        values = torch.linalg.svdvals(rows)  # in descending order
        return values[max(len(values) - k, 1) :].square().sum()


class Bss(Method):
    """eta * ``bss_penalty`` of the trainer's own (pooled) features.

    Args:
        eta: factor.
        k: how many singular values are shrunk.

    Raises:
        InputError: eta is negative or k below 1.

    >>> import torch
    >>> from monai_transfer.methods.base import Fields
    >>> from monai_transfer.methods.bss import Bss
    >>> Bss(eta=1.0)(Fields(source_features=torch.diag(torch.tensor([3.0, 2.0]))), progress=0.5)  # 2 squared
    tensor(4.)
    """

    needs = frozenset({"source_features"})
    norm_statistics = "untouched: the trainer's own forward pass"
    caution = "at its paper's eta its gradient is about 1e-4 of the task's on small networks: raise eta"

    def __init__(self, eta: float = 1e-3, k: int = 1) -> None:
        super().__init__()
        if eta < 0 or k < 1:
            raise InputError(
                f"BSS needs eta >= 0 and k >= 1, got {eta} and {k}", hint="the paper's are eta=0.001 and k=1"
            )
        self.eta, self.k = eta, k

    def forward(self, fields: Fields, progress: float) -> Tensor:
        return self.eta * bss_penalty(fields.source_features.flatten(1), self.k)
