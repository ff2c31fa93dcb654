"""Masked autoencoding: hide most of a scan in blocks and learn to fill it in; only hidden voxels count.

    L = mean over cases of  sum_v m_v |f(x * (1 - m))_v - x_v|^p / sum_v m_v,    p = 2 (or 1)

Paper: He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, arXiv:2111.06377; for 3D medical images
Chen et al., Masked Image Modeling Advances 3D Medical Image Analysis, WACV 2023, arXiv:2204.11716; for networks with
convolutions, where hidden voxels are filled and stay in the input, Xie et al., SimMIM, CVPR 2022, arXiv:2111.09886

A convolutional network (``UNet``, ``SegResNet`` ...) is trained as it is, with as many outputs as input channels:
``RandMaskBlocksd`` hides, ``MaskedReconstructionLoss`` compares. MONAI's ``MaskedAutoEncoderViT`` hides patches by
itself and encodes the visible ones alone: give it the whole image, the image again as the label (``CopyItemsd``), and
``MaskedPatchLoss``. Hidden blocks pass through normalisation layers as a constant: running statistics of BatchNorm are
those of masked images, and move when fine-tuning starts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from monai_transfer.networks.outputs import at_least_float32
from monai_transfer.networks.tap import first_tensor

__all__ = ["MaskedPatchLoss", "MaskedReconstructionLoss", "patches_of"]


class MaskedReconstructionLoss(nn.Module):
    """Error on hidden voxels alone, for a network that returns an image.

    Each case counts the same, so that the mean over ranks is the mean over their joint batch.

    Args:
        norm: ``l2`` (squared) or ``l1`` (absolute error).

    Raises:
        ValueError: ``norm`` is neither, or prediction and target do not fit together.

    The target holds the image and a mask of what was hidden; errors elsewhere count nothing:

    >>> import torch
    >>> from monai_transfer.pretraining.masked_autoencoding import MaskedReconstructionLoss
    >>> image, hidden = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    >>> hidden[..., :2] = 1
    >>> guess = image.clone()
    >>> guess[..., 2:] = 7  # wrong, and not hidden
    >>> MaskedReconstructionLoss()(guess, torch.cat([image, hidden], 1)).item()
    0.0
    """

    def __init__(self, norm: str = "l2") -> None:
        super().__init__()
        self.power = _power(norm)

    def forward(self, pred: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """A scalar from the prediction B x C x spatial and the target B x (C + 1) x spatial of ``RandMaskBlocksd``."""
        pred, target = at_least_float32(first_tensor(pred)), at_least_float32(first_tensor(target))
        if target.shape[1] != pred.shape[1] + 1 or target.shape[2:] != pred.shape[2:]:
            raise ValueError(
                f"a prediction of {tuple(pred.shape)} does not fill in {tuple(target.shape)}: the network needs as "
                "many outputs as the image has channels, and the target these and the mask"
            )
        image, mask = target[:, :-1], target[:, -1:]
        error = (pred - image).abs().pow(self.power) * mask
        return (error.flatten(1).sum(1) / (mask.flatten(1).sum(1) * image.shape[1]).clamp_min(1)).mean()


class MaskedPatchLoss(nn.Module):
    """Error on hidden patches alone, for ``monai.networks.nets.MaskedAutoEncoderViT``, whose output is (patches, mask).

    Args:
        patch_size: the network's, one number or one per axis.
        norm: ``l2`` or ``l1``.
        normalise: compare with each patch's own z-score, as He et al. do for better features; without it, with the
            intensities, which gives pictures that can be looked at.

    Raises:
        ValueError: ``norm`` is neither, or the image's patches are not those of the prediction.

    One image of 4 x 4 in four patches of 2 x 2; the error counts where the mask is 1:

    >>> image, hidden = torch.ones(1, 1, 4, 4), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    >>> loss = MaskedPatchLoss(patch_size=2, normalise=False)
    >>> float(loss((torch.zeros(1, 4, 4), hidden), image))
    1.0
    """

    def __init__(self, patch_size: int | Sequence[int], norm: str = "l2", normalise: bool = True) -> None:
        super().__init__()
        self.patch_size, self.power, self.normalise = patch_size, _power(norm), normalise

    def forward(self, pred: Sequence[Tensor], target: Tensor) -> Tensor:
        """A scalar from (B x N x values, B x N with 1 where hidden) and the image B x C x spatial."""
        values, mask = at_least_float32(first_tensor(pred[0])), pred[1]
        truth = patches_of(at_least_float32(first_tensor(target)), self.patch_size)
        if truth.shape != values.shape:
            raise ValueError(f"patches of {tuple(truth.shape)} do not fit a prediction of {tuple(values.shape)}")
        if self.normalise:
            variance, mean = torch.var_mean(truth, dim=-1, keepdim=True)
            truth = (truth - mean) / (variance + 1e-6).sqrt()
        hidden = mask.to(values.dtype)
        error = (values - truth).abs().pow(self.power).mean(-1) * hidden
        return (error.sum(1) / hidden.sum(1).clamp_min(1)).mean()


def patches_of(image: Tensor, patch_size: int | Sequence[int]) -> Tensor:
    """B x C x spatial as B x N x (voxels of a patch times C), patches in the order of MONAI's patch embedding.

    Args:
        image: B x C x spatial.
        patch_size: voxels per axis, or one number for all.

    Raises:
        ValueError: the image is not a whole number of patches.

    A 4 x 4 image in patches of 2 x 2:

    >>> import torch
    >>> patches_of(torch.arange(16.0).reshape(1, 1, 4, 4), 2)[0].tolist()
    [[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0], [8.0, 9.0, 12.0, 13.0], [10.0, 11.0, 14.0, 15.0]]
    """
    dims = image.ndim - 2
    sizes = ensure_tuple_rep(patch_size, dims)
    if any(n % p for n, p in zip(image.shape[2:], sizes, strict=True)):
        raise ValueError(f"an image of {list(image.shape[2:])} voxels is not a whole number of {list(sizes)} patches")
    for axis, size in enumerate(sizes):
        image = image.unflatten(2 + 2 * axis, (-1, size))  # B C n1 p1 n2 p2 ...
    counts, within = range(2, 2 + 2 * dims, 2), range(3, 3 + 2 * dims, 2)
    return image.permute(0, *counts, *within, 1).flatten(1 + dims).flatten(1, dims)


def _power(norm: str) -> int:
    if norm not in ("l1", "l2"):
        raise ValueError(f"norm must be 'l1' or 'l2', not {norm!r}")
    return int(norm[1])
