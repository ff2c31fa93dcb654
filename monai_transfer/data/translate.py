"""A fitted image translation as a transform of the source pipeline: scans change their look, labels stay."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type
from torch import nn

__all__ = ["TranslateToTargetd"]


class TranslateToTargetd(RandomizableTransform, MapTransform):
    """Replaces a source scan by its translation into the target's look.

    Stands behind the same normalisation that the translation was fitted on.

    Args:
        keys: image keys, C x spatial.
        translation: a fitted ``monai_transfer.data.translation.Translation``.
        prob: share of the scans that is translated; below 1 the network also sees scans as they are.
        window: largest edge that is translated in one go; larger scans go by sliding window.

    >>> import torch
    >>> brighter = nn.Module()
    >>> brighter.forward = lambda image, window=None: image + 1  # a fitted `Translation` in practice
    >>> TranslateToTargetd("image", brighter)({"image": torch.zeros(1, 8, 8)})["image"].max().item()
    1.0
    """

    def __init__(
        self,
        keys: KeysCollection,
        translation: nn.Module,
        prob: float = 1.0,
        window: int = 128,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.translation, self.window = translation, window

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return result
        device = next((p.device for p in self.translation.parameters()), torch.device("cpu"))
        for key in self.key_iterator(result):
            image = torch.as_tensor(result[key])
            plain = image.as_tensor() if hasattr(image, "as_tensor") else image
            with torch.no_grad():
                translated = self.translation(plain.float()[None].to(device), window=self.window)[0].cpu()
            result[key] = convert_to_dst_type(translated, result[key], dtype=translated.dtype)[0]
        return result
