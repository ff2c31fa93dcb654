"""Contrast turned round on a share of the cases: bright structures become dark, as between T1 and T2, or stains.

    x' = max + min - x   per channel; then, where asked, the mean and spread of x

Never on the only copy of an image whose numbers mean something (a CT in Hounsfield units): as an augmentation, mixed
with plain cases.
"""

from __future__ import annotations

from monai.config import KeysCollection
from torch import Tensor

from monai_transfer.data.augmentation.base import RandIntensity, RandIntensityd, range_of, restore_statistics

__all__ = ["RandContrastInversion", "RandContrastInversiond"]


class RandContrastInversion(RandIntensity):
    """Turn contrast round.

    Args:
        prob: probability.
        restore: give each channel its old mean and standard deviation again; without, its least and greatest value
            stay.

    Example:
        >>> import torch
        >>> RandContrastInversion(1.0, restore=False)(torch.tensor([[[0.0, 1.0, 4.0]]])).tolist()
        [[[4.0, 3.0, 0.0]]]
    """

    def __init__(self, prob: float = 0.5, restore: bool = True) -> None:
        super().__init__(prob)
        self.restore = bool(restore)

    def draw(self, image: Tensor) -> None:
        """Nothing to draw."""

    def apply(self, image: Tensor) -> Tensor:
        low, high = range_of(image)
        turned = high + low - image
        return restore_statistics(turned, image) if self.restore else turned


class RandContrastInversiond(RandIntensityd):
    """Dictionary face of ``RandContrastInversion``.

    Args:
        keys: image keys (C x spatial).
        prob, restore: as of ``RandContrastInversion``.
        allow_missing_keys: skip keys that a case lacks.

    Example:
        >>> import torch
        >>> turn = RandContrastInversiond("image", 1.0, restore=False)
        >>> turn({"image": torch.tensor([[[0.0, 4.0]]])})["image"].tolist()
        [[[4.0, 0.0]]]
    """

    def __init__(
        self, keys: KeysCollection, prob: float = 0.5, restore: bool = True, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, RandContrastInversion(prob, restore), allow_missing_keys)
