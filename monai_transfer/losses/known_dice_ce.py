"""Dice and cross entropy over what is known of a segmentation.

Each voxel has for each class a target: 1 it is that, 0 it is not, -1 nobody can tell. With p = softmax of the logits:

    cross entropy = - mean over voxels of log sum of p over the classes that the voxel may be
    Dice          = mean over classes of 1 - 2 sum p t / (sum p^2 + sum t^2), over the voxels known for the class

A voxel may be the class that it is marked as, or, unmarked where not every class was looked for, the background or any
class that nobody looked for: the marginal loss of Shi et al., "Marginal loss and exclusion loss for partially
supervised multi-organ segmentation", Medical Image Analysis 70, 2021. A voxel of which nothing is known has no term and
no gradient. Where everything is known the value is that of ``monai.losses.DiceCELoss(to_onehot_y=True, softmax=True,
batch=True, squared_pred=True)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_transfer.errors import InputError

__all__ = ["KnownDiceCELoss", "class_targets"]

_SMOOTH = 1e-5


def class_targets(label: Tensor, classes: int) -> Tensor:
    """Targets (B, C, spatial) of 1, 0, -1 from a label: class numbers (B, 1, spatial), -1 ignored; or targets already.

    Args:
        label: B x 1 x spatial, or B x C x spatial.
        classes: C, outputs of the network.

    Raises:
        InputError: the label has neither one channel nor one for each class.

    >>> class_targets(torch.tensor([[[0, 1, -1]]]), 2).tolist()
    [[[1, 0, -1], [0, 1, -1]]]
    """
    if label.shape[1] == classes and classes > 1:
        return label.to(torch.int8)
    if label.shape[1] != 1:
        raise InputError(
            f"the label has {label.shape[1]} channels, the network {classes} outputs",
            hint="give class numbers in one channel, or LabelTargetsd's channel for each output",
        )
    number = label.long()
    found = torch.zeros((len(label), classes, *label.shape[2:]), dtype=torch.int8, device=label.device)
    found.scatter_(1, number.clamp(0, classes - 1), 1)
    return torch.where((number < 0) | (number >= classes), torch.full_like(found, -1), found)


class KnownDiceCELoss(nn.Module):
    """Dice plus cross entropy over the known part of a label; see the module's text.

    Args:
        weight: of each class in the cross entropy; None: all alike.

    >>> loss = KnownDiceCELoss()
    >>> logits = torch.tensor([[[9.0, 9.0], [-9.0, -9.0]]])
    >>> round(loss(logits, torch.tensor([[[0, -1]]])).item(), 3)  # the second voxel is ignored
    0.0
    """

    def __init__(self, weight: Sequence[float] | None = None) -> None:
        super().__init__()
        self.weight: Tensor | None
        self.register_buffer("weight", None if weight is None else torch.tensor(list(weight)))

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """``logits`` (B, C, spatial); ``label``: class numbers (B, 1, spatial), -1 ignored; or targets, like logits."""
        target = class_targets(label, logits.shape[1])
        scores = logits.float()
        return self._cross_entropy(scores, target) + self._dice(scores, target)

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        marked = (target == 1).any(1, keepdim=True)
        allowed = torch.where(marked, target == 1, target != 0)
        known = ~allowed.all(1)
        inside = logits.masked_fill(~allowed, -torch.inf).logsumexp(1)
        each = logits.logsumexp(1) - inside
        share = known.to(each.dtype)
        if self.weight is not None:  # of the marked class; of an unmarked voxel the background's
            shape = (1, -1, *[1] * (logits.ndim - 2))
            of_class = self.weight.to(each).reshape(shape)
            share = share * torch.where(marked, (target == 1) * of_class, of_class[:, :1]).amax(1)
        return (each * share).sum() / share.sum().clamp(min=1e-8)

    @staticmethod
    def _dice(logits: Tensor, target: Tensor) -> Tensor:
        known = target >= 0
        axes = [0, *range(2, logits.ndim)]
        p, t = logits.softmax(1) * known, ((target == 1) & known).to(logits.dtype)
        above = 2 * (p * t).sum(axes) + _SMOOTH
        below = (p * p).sum(axes) + t.sum(axes) + _SMOOTH
        told = known.flatten(2).any(2).any(0)  # classes of which this batch tells anything
        return ((1 - above / below) * told).sum() / told.sum().clamp(min=1)
