"""Dice and binary cross entropy over what is known of outputs that may overlap, such as the regions of a tumour.

Each voxel has for each output a target: 1 it is inside, 0 it is not, -1 nobody can tell. With p = sigmoid(logits):

    loss = mean over known targets of BCE(logit, t)
         + mean over outputs of 1 - 2 sum p t / (sum p^2 + sum t^2), over the batch's voxels known for the output

Where everything is known the value is that of ``monai.losses.DiceLoss(sigmoid=True, batch=True, squared_pred=True)``
plus ``torch.nn.BCEWithLogitsLoss()``: nnU-Net's loss for regions.
"""

from __future__ import annotations

from torch import Tensor, nn

from monai_transfer.losses.masked_bce import MaskedBCELoss

__all__ = ["KnownDiceBCELoss"]

_SMOOTH = 1e-5


class KnownDiceBCELoss(nn.Module):
    """Dice plus binary cross entropy of overlapping outputs; see the module's text.

    >>> import torch
    >>> logits = torch.tensor([[[9.0, 9.0], [-9.0, 9.0]]])
    >>> round(KnownDiceBCELoss()(logits, torch.tensor([[[1, -1], [0, 1]]])).item(), 3)
    0.0
    """

    def __init__(self) -> None:
        super().__init__()
        self.cross_entropy = MaskedBCELoss()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` (B, C, spatial); ``target`` of the same shape: 1, 0, or -1 where it is not known."""
        scores = logits.float()
        bce = self.cross_entropy(scores, target)
        known = (target == 0) | (target == 1)
        axes = [0, *range(2, logits.ndim)]
        p, t = scores.sigmoid() * known, (target == 1).to(scores.dtype)
        above = 2 * (p * t).sum(axes) + _SMOOTH
        below = (p * p).sum(axes) + t.sum(axes) + _SMOOTH
        told = known.flatten(2).any(2).any(0)
        return bce + ((1 - above / below) * told).sum() / told.sum().clamp(min=1)
