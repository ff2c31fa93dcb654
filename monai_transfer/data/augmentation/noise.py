"""Gaussian noise in units of the image's own spread, so that it is as strong on [0, 1] as on a z-score.

    x' = x + s sd(x) n,   n ~ N(0, 1),   s ~ U(0, most),   sd(x) of each channel

MONAI's ``RandGaussianNoise`` has an absolute spread: .3 is mild on a z-scored MR and drowns an image scaled to [0, 1].

Paper: Isensee et al., nnU-Net, Nature Methods 2021, arXiv:1809.10486 (variance up to .1 of z-scored images)
"""

from __future__ import annotations

import numpy as np
import torch
from monai.config import KeysCollection
from torch import Tensor

from monai_transfer.data.augmentation.base import RandIntensity, RandIntensityd
from monai_transfer.errors import InputError

__all__ = ["RandRelativeNoise", "RandRelativeNoised"]


class RandRelativeNoise(RandIntensity):
    """Add noise of a share of the image's spread.

    Args:
        prob: probability.
        most: greatest standard deviation, as a share of each channel's.

    Raises:
        InputError: ``prob`` is not a probability, or ``most`` is negative.

    Example:
        >>> image = 1000 + 50 * torch.randn(1, 64, 64)
        >>> noise = RandRelativeNoise(1.0, most=0.3).set_random_state(0)
        >>> bool((noise(image) - image).std() < 0.35 * 50)
        True
    """

    def __init__(self, prob: float = 0.1, most: float = 0.3) -> None:
        super().__init__(prob)
        if most < 0:
            raise InputError(f"a spread is not negative, and this is {most}", hint="give e.g. 0.3")
        self.most = float(most)
        self.share, self.noise = 0.0, np.zeros(0, dtype=np.float32)

    def draw(self, image: Tensor) -> None:
        """Draw the ``share`` and the ``noise``."""
        self.share = float(self.R.uniform(0, self.most))
        self.noise = self.R.standard_normal(tuple(image.shape)).astype(np.float32)

    def apply(self, image: Tensor) -> Tensor:
        axes = tuple(range(1, image.ndim))
        noise = torch.as_tensor(self.noise, dtype=image.dtype, device=image.device)
        return image + self.share * image.std(axes, keepdim=True, correction=0) * noise


class RandRelativeNoised(RandIntensityd):
    """Dictionary face of ``RandRelativeNoise``.

    Args:
        keys: image keys (C x spatial).
        prob, most: as of ``RandRelativeNoise``.
        allow_missing_keys: skip keys that a case lacks.

    Example:
        >>> RandRelativeNoised("image", 1.0)({"image": torch.rand(1, 8, 8)})["image"].shape
        torch.Size([1, 8, 8])
    """

    def __init__(
        self, keys: KeysCollection, prob: float = 0.1, most: float = 0.3, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, RandRelativeNoise(prob, most), allow_missing_keys)
