"""Hiding blocks of an image, for a network that must fill them in."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import ensure_tuple_rep

__all__ = ["RandMaskBlocksd"]


class RandMaskBlocksd(MapTransform, RandomizableTransform):
    """Hides random blocks of the image and keeps the truth as the label: the image as it was, and the mask.

    ``image`` becomes C x spatial with ``fill`` in the hidden blocks; ``label`` becomes (C + 1) x spatial, the original
    channels and a last one that is 1 where a voxel was hidden: what ``MaskedReconstructionLoss`` reads. The same blocks
    are hidden in all channels. Use it last, after normalisation and cropping.

    Args:
        keys: the image key.
        target_key: where the truth goes.
        block: voxels per side of a block, one number or one per axis; the last blocks of an axis may be smaller.
        ratio: share of the blocks that are hidden; at least one is, and at least one is not.
        fill: value of hidden voxels; 0 is the mean after z-scoring.
        seed: hide the same blocks in every call (of images of equal shape), for validation; ``None`` draws anew.
        allow_missing_keys: skip a missing image.

    Raises:
        ValueError: ``ratio`` is not within (0, 1), ``block`` is not positive, or there is more than one key.

    >>> import torch
    >>> from monai_transfer.pretraining.masking import RandMaskBlocksd
    >>> out = RandMaskBlocksd(block=4, ratio=0.5, seed=0)({"image": torch.ones(1, 16, 16)})
    >>> out["image"].mean().item(), out["label"].shape  # half is hidden; the label holds the image and the mask
    (0.5, torch.Size([2, 16, 16]))
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        target_key: str = "label",
        block: int | Sequence[int] = 8,
        ratio: float = 0.6,
        fill: float = 0.0,
        seed: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)
        if len(self.keys) != 1:
            raise ValueError(f"RandMaskBlocksd takes one image key, not {self.keys}")
        if not 0 < ratio < 1:
            raise ValueError(f"ratio is a share between 0 and 1, not {ratio}")
        if np.min(block) < 1:
            raise ValueError(f"block must be 1 voxel or more, not {block}")
        self.target_key, self.block, self.ratio, self.fill, self.seed = target_key, block, ratio, fill, seed

    def _mask(self, shape: Sequence[int], random: np.random.RandomState) -> np.ndarray:
        """1 x spatial, 1 where hidden."""
        blocks = [min(int(b), n) for b, n in zip(ensure_tuple_rep(self.block, len(shape)), shape, strict=True)]
        grid = [-(-n // b) for n, b in zip(shape, blocks, strict=True)]
        total = int(np.prod(grid))
        if total < 2:
            raise ValueError(f"blocks of {self.block} cannot hide a part of an image of {list(shape)} voxels")
        hidden = np.zeros(total, np.float32)
        hidden[random.permutation(total)[: min(max(1, round(self.ratio * total)), total - 1)]] = 1
        mask = hidden.reshape(grid)
        for axis, b in enumerate(blocks):
            mask = mask.repeat(b, axis)
        return mask[tuple(slice(n) for n in shape)][None]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """``data`` with the hidden image and its truth."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            random = self.R if self.seed is None else np.random.RandomState(self.seed)
            mask = torch.from_numpy(self._mask(image.shape[1:], random)).to(image.device, image.dtype)
            result[self.target_key] = torch.cat([getattr(image, "as_tensor", lambda x=image: x)(), mask])
            result[key] = image * (1 - mask) + self.fill * mask
        return result
