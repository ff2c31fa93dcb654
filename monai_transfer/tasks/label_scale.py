"""A regression's labels, scaled to mean 0 and spread 1 so that one learning rate fits all of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

__all__ = ["ScaleLabeld"]


class ScaleLabeld(MapTransform):
    """A number to a tensor of one value, ``(number - mean) / std``.

    Args:
        keys: of the numbers.
        mean, std: of the training labels, in the labels' unit.
        allow_missing_keys: skip keys that a case lacks.

    >>> ScaleLabeld("label", mean=30.0, std=10.0)({"label": 45.0})
    {'label': tensor([1.5000])}
    """

    def __init__(self, keys: KeysCollection, mean: float, std: float, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mean, self.std = mean, std

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with its numbers scaled."""
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = (torch.as_tensor([float(out[key])]) - self.mean) / self.std
        return out
