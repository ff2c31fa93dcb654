"""Binary cross entropy over the findings that are known.

    loss = sum over known findings of w_f BCE(logit, target) / number of known findings

A missing label is not a negative (as in TorchXRayVision; Cohen et al., MIDL 2022): it has no term and no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_transfer.errors import InputError

__all__ = ["MaskedBCELoss"]


class MaskedBCELoss(nn.Module):
    """Mean binary cross entropy of the logits whose target is 0 or 1; every other target is unknown and left out.

    Args:
        pos_weight: weight of a present finding, one for each output; None: 1.

    Raises:
        InputError: logits and targets differ in shape.

    >>> loss = MaskedBCELoss()
    >>> loss(torch.tensor([[0.0, 9.0]]), torch.tensor([[1.0, -1.0]])).item()
    0.6931471824645996
    """

    def __init__(self, pos_weight: Sequence[float] | None = None) -> None:
        super().__init__()
        self.pos_weight: Tensor | None
        self.register_buffer("pos_weight", None if pos_weight is None else torch.tensor(list(pos_weight)))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` and ``target``: (B, F) or (B, F, spatial); a batch without any known target has loss 0."""
        if logits.shape != target.shape:
            fault = f"the outputs have the shape {tuple(logits.shape)}, the targets {tuple(target.shape)}"
            raise InputError(fault, hint="give one target for each output: 1, 0, or -1 where it is unknown")
        known = (target == 0) | (target == 1)
        weight = None
        if self.pos_weight is not None:
            weight = self.pos_weight.to(logits.device).reshape(-1, *[1] * (logits.ndim - 2))
        each = F.binary_cross_entropy_with_logits(
            logits, torch.where(known, target, 0.0).to(logits.dtype), reduction="none", pos_weight=weight
        )
        return (each * known).sum() / known.sum().clamp(min=1)
