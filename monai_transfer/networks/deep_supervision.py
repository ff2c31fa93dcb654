"""The loss of all heads of a network, in whatever form it gives them; on a plain output, the loss itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.networks.output_forms import auxiliary_loss, is_stack, output_heads

__all__ = ["HeadsLoss"]


class HeadsLoss(nn.Module):
    """Deep supervision: the weighted mean of a loss over a network's heads (list, tuple or stack).

    A head at 1/2^k of the resolution weighs 1/2^k, stacked heads (``DynUNet``, which brings them all to full size) 1,
    1/2, 1/4 ... in their order, as in Isensee et al., nnU-Net, Nature Methods 2021; heads that are all full size
    (UNet++) count the same. Weights are divided by their sum, so that the loss keeps its size beside other terms.
    MONAI's ``DeepSupervisionLoss`` takes lists and tuples alone and adds without dividing.

    Args:
        loss: of one output and the label, e.g. ``monai.losses.DiceCELoss``.
        weights: of the heads, main one first, instead of the above.
        auxiliary: factor of a loss that the network itself gives beside its scores (``SegResNetVAE``; .1 as in
            Myronenko, arXiv:1810.11654).
        dims: number of spatial dimensions of the images, where label maps B x C x H x W could be taken for volumes.

    >>> import torch
    >>> heads = [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4)]
    >>> loss = HeadsLoss(torch.nn.CrossEntropyLoss())
    >>> round(float(loss(heads, torch.zeros(1, 8, 8, dtype=torch.long))), 4)
    0.6931
    """

    def __init__(
        self,
        loss: Callable[..., Tensor],
        weights: Sequence[float] | None = None,
        auxiliary: float = 0.1,
        dims: int | None = None,
    ) -> None:
        super().__init__()
        self.loss, self.weights, self.auxiliary, self.dims = loss, weights, auxiliary, dims

    def forward(self, output: Any, label: Tensor) -> Tensor:
        """The loss.

        Args:
            output: B x C x spatial, B x heads x C x spatial, or a list or tuple of B x C x spatial.
            label: B x spatial, B x 1 x spatial or B x C x spatial, at full size; for smaller heads the nearest voxel.

        Raises:
            InputError: there are more heads than ``weights``.
        """
        dims = self._dims(output, label)
        heads = output_heads(output, dims)
        if self.weights is not None and len(self.weights) < len(heads):
            raise InputError(
                f"the network has {len(heads)} heads, and there are {len(self.weights)} weights",
                hint="give one weight for each head, the main one first",
            )
        stacked = isinstance(output, Tensor) and is_stack(output, dims)
        weights = list(self.weights[: len(heads)]) if self.weights else _weights(heads, stacked)
        losses = [weight * self.loss(head, _resized(label, head)) for weight, head in zip(weights, heads, strict=True)]
        total: Tensor = torch.stack(losses).sum() / sum(weights)
        own = auxiliary_loss(output)
        return total if own is None else total + self.auxiliary * own

    def _dims(self, output: Any, label: Tensor) -> int | None:
        """The images' spatial dimensions, told by the label's axes: B x spatial or B x channels x spatial."""
        if self.dims is not None or not isinstance(output, Tensor):
            return self.dims
        if output.ndim == 6:
            return 3  # B x heads x C x H x W x D: images have three dimensions at most
        more = output.ndim - label.ndim
        stacked = more == 2 or (more == 1 and label.shape[1:] != output.shape[2:])
        if more == 1 and label.shape[1:] == output.shape[2:] and label.is_floating_point() and output.ndim == 5:
            stacked = True  # one-hot, and no map of class numbers, which are whole
        return output.ndim - (3 if stacked and output.ndim >= 5 else 2)


def _weights(heads: Sequence[Tensor], stacked: bool) -> list[float]:
    if stacked:
        return [0.5**place for place in range(len(heads))]
    full = max(heads[0].shape[2:], default=1)
    return [max(head.shape[2:], default=1) / full for head in heads]


def _resized(label: Tensor, head: Tensor) -> Tensor:
    """The label on a smaller head's grid, by the nearest voxel; what has no axes of space stays."""
    dims = head.ndim - 2
    if not dims or label.ndim < dims + 1 or label.shape[-dims:] == head.shape[2:]:
        return label
    whole = label.unsqueeze(1) if label.ndim == dims + 1 else label
    small = F.interpolate(whole.float(), size=head.shape[2:], mode="nearest-exact").to(label.dtype)
    return small[:, 0] if label.ndim == dims + 1 else small
