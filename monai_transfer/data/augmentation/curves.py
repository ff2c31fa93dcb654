"""Appearance curves: grey values through a random smooth curve that keeps their order, or turns it round.

A cubic Bezier curve from (0, 0) to (1, 1) with two control points drawn in the unit square maps the values of each
channel, scaled to its range; for a falling curve the axis is turned round first. Unlike a gamma it may bend twice, so a
tissue's contrast to its two neighbours changes independently.

Paper: Zhou, Sodha, Pang, Gotway and Liang, Models Genesis, Medical Image Analysis 2021, arXiv:2004.07882 (non-linear
intensity transformation)
"""

from __future__ import annotations

import numpy as np
import torch
from monai.config import KeysCollection
from torch import Tensor

from monai_transfer.data.augmentation.base import RandIntensity, RandIntensityd, range_of, restore_statistics
from monai_transfer.errors import InputError

__all__ = ["RandAppearanceCurve", "RandAppearanceCurved"]

_STEPS = 1024


class RandAppearanceCurve(RandIntensity):
    """Map grey values through a random monotone curve.

    Args:
        prob: probability.
        falling: probability that the curve falls, which turns contrast round.
        restore: give each channel its old mean and standard deviation again; without, its least and greatest value
            stay.

    Raises:
        InputError: ``prob`` or ``falling`` is not a probability.

    Example:
        >>> curve = RandAppearanceCurve(1.0, falling=0.0, restore=False).set_random_state(1)
        >>> out = curve(torch.tensor([[[0.0, 1.0, 2.0, 4.0]]]))[0, 0]
        >>> bool((out.diff() > 0).all()), float(out[0]), float(out[-1])
        (True, 0.0, 4.0)
    """

    def __init__(self, prob: float = 0.5, falling: float = 0.0, restore: bool = True) -> None:
        super().__init__(prob)
        if not 0 <= falling <= 1:
            raise InputError(f"a probability lies between 0 and 1, not at {falling}", hint="such as falling=0.3")
        self.falling, self.restore = float(falling), bool(restore)
        self.points = np.zeros((2, 2))
        self.falls = False

    def draw(self, image: Tensor) -> None:
        """Draw the control ``points`` (2 x 2: place, height) and whether the curve ``falls``."""
        self.points = self.R.uniform(size=(2, 2))
        self.falls = bool(self.R.rand() < self.falling)

    def curve(self) -> np.ndarray:
        """Heights of the drawn curve at evenly spaced places from 0 to 1."""
        t = np.linspace(0, 1, _STEPS)
        first, second, third = 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
        place, height = (first * self.points[0, i] + second * self.points[1, i] + third for i in (0, 1))
        # the place of a cubic curve with control points in the unit square never falls; its height may, and is ordered
        heights = np.interp(np.linspace(0, 1, _STEPS), place, np.maximum.accumulate(height))
        return heights[::-1].copy() if self.falls else heights

    def apply(self, image: Tensor) -> Tensor:
        low, high = range_of(image)
        span = high - low
        where = ((image - low) / span.clamp_min(1e-12)).clamp(0, 1) * (_STEPS - 1)
        table = torch.as_tensor(self.curve(), dtype=image.dtype, device=image.device)
        index = where.floor().clamp(0, _STEPS - 2).long()
        mapped = torch.lerp(table[index], table[index + 1], where - index)
        out = torch.where(span > 0, low + mapped * span, image)
        return restore_statistics(out, image) if self.restore else out


class RandAppearanceCurved(RandIntensityd):
    """Dictionary face of ``RandAppearanceCurve``.

    Args:
        keys: image keys (C x spatial); each is drawn for anew.
        prob: probability.
        falling: probability that the curve falls.
        restore: keep mean and standard deviation; else least and greatest value.
        allow_missing_keys: skip keys that a case lacks.

    Example:
        >>> turn = RandAppearanceCurved("image", 1.0, falling=1.0, restore=False)
        >>> turn({"image": torch.tensor([[[0.0, 3.0]]])})["image"].tolist()
        [[[3.0, 0.0]]]
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        falling: float = 0.0,
        restore: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, RandAppearanceCurve(prob, falling, restore), allow_missing_keys)
