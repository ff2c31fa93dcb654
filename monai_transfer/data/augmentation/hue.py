"""Hue and saturation of RGB images: colours turned about the grey axis, and drawn towards or away from it.

    x' = m + c R(h) (x - m),   m: mean of the three channels, R(h): rotation about (1, 1, 1) by h turns, c: saturation

A linear map of the three channels: it needs no value range, leaves grey grey and each pixel's mean brightness as it is,
and so may stand before or behind a normalisation that treats the channels alike.

Paper: Tellez et al., Quantifying the effects of data augmentation and stain color normalization in convolutional neural
networks for computational pathology, Medical Image Analysis 2019, arXiv:1902.06543 (hue and saturation jitter; there
in HSV)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.config import KeysCollection
from torch import Tensor

from monai_transfer.data.augmentation.base import RandIntensity, RandIntensityd, between
from monai_transfer.data.augmentation.stain import refuse_unless_rgb

__all__ = ["RandHue", "RandHued"]


class RandHue(RandIntensity):
    """Turn hues and change saturation.

    Args:
        prob: probability.
        hue: largest turn either way, or a range, in turns: a third makes red green.
        saturation: range of the factor.

    Raises:
        InputError: a range that makes no sense, or an image without three channels.

    Example:
        >>> red = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
        >>> RandHue(1.0, hue=(1 / 3, 1 / 3), saturation=(1, 1))(red).flatten().round(decimals=4).abs().tolist()
        [0.0, 1.0, 0.0]
    """

    def __init__(
        self, prob: float = 0.5, hue: float | Sequence[float] = 0.1, saturation: Sequence[float] = (0.8, 1.2)
    ) -> None:
        super().__init__(prob)
        self.hue = between(hue, "hue", low=-0.5, high=0.5)
        self.saturation = between(saturation, "saturation", low=0)
        self.turn, self.factor = 0.0, 1.0

    def draw(self, image: Tensor) -> None:
        """Draw the ``turn`` and the saturation's ``factor``."""
        refuse_unless_rgb(image, "hue jitter")
        self.turn = float(self.R.uniform(*self.hue))
        self.factor = float(self.R.uniform(*self.saturation))

    def apply(self, image: Tensor) -> Tensor:
        refuse_unless_rgb(image, "hue jitter")
        angle = 2 * math.pi * self.turn
        # Rodrigues' formula about the unit vector (1, 1, 1) / sqrt 3; colours are perpendicular to it
        side = math.sin(angle) / math.sqrt(3)
        cross = torch.tensor([[0.0, -side, side], [side, 0.0, -side], [-side, side, 0.0]]).to(image)
        turn = math.cos(angle) * torch.eye(3).to(image) + cross
        mean = image.mean(0, keepdim=True)
        return mean + self.factor * torch.einsum("kc,c...->k...", turn, image - mean)


class RandHued(RandIntensityd):
    """Dictionary face of ``RandHue``.

    Args:
        keys: image keys (3 x spatial).
        prob, hue, saturation: as of ``RandHue``.
        allow_missing_keys: skip keys that a case lacks.

    Example:
        >>> RandHued("image", 1.0)({"image": torch.rand(3, 8, 8)})["image"].shape
        torch.Size([3, 8, 8])
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        hue: float | Sequence[float] = 0.1,
        saturation: Sequence[float] = (0.8, 1.2),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, RandHue(prob, hue, saturation), allow_missing_keys)
