"""Appearance at random: contrast, bias field, resolution, blur and noise, to generalise across scanners.

Only intensities change, so labels stay valid. All parts are MONAI's own transforms.

Paper: Zhang et al., Generalizing Deep Learning for Medical Image Segmentation to Unseen Domains via Deep Stacked
Transformation, IEEE TMI 2020, arXiv:1906.03347

``RandAppearanced`` stands in a source pipeline (domain generalisation, and the control that every adaptation method
has to beat). ``StrongViewd`` adds a strongly augmented copy of the image under the key ``strong``, which mean teacher,
FixMatch and the like read. Use both **after** intensity normalisation. ``invert`` also turns contrast round now and
then: against modality shifts such as bright-on-dark to dark-on-bright.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import (
    Compose,
    MapTransform,
    RandAdjustContrastd,
    RandBiasFieldd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandLambdad,
    Randomizable,
    RandSimulateLowResolutiond,
)

from monai_transfer.data.augmentation.base import composed
from monai_transfer.data.augmentation.presets import randomised_parts
from monai_transfer.errors import InputError

__all__ = ["RandAppearanced", "StrongViewd", "strong_randomised", "strong_views"]


class _RandLowResolutiond(RandSimulateLowResolutiond):
    """MONAI's own, with linear upsampling in 2D as well (its default is trilinear, and fails there)."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        first = self.first_key(dict(data))
        if first in data:
            self.sim_lowres_tfm.upsample_mode = "trilinear" if data[first].ndim == 4 else "bilinear"
        return super().__call__(data)


class RandAppearanced(Compose):
    """Random contrast (turned round, gamma), bias field, resolution, blur and noise, in this order.

    Args:
        keys: image keys (C x spatial).
        prob: probability of each part.
        strength: 1 is a wide but plausible range; 0 leaves images nearly as they are.
        invert: probability that contrast is turned round; minimum and maximum stay.
        allow_missing_keys: skip keys that a case lacks.

    Raises:
        InputError: ``strength`` is negative.

    >>> import torch
    >>> from monai_transfer.data.randomisation import RandAppearanced
    >>> transform = RandAppearanced(keys="image", prob=1.0)
    >>> _ = transform.set_random_state(0)
    >>> image = torch.rand(1, 16, 16)
    >>> out = transform({"image": image.clone()})["image"]
    >>> out.shape, torch.equal(out, image)
    (torch.Size([1, 16, 16]), False)
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.3,
        strength: float = 1.0,
        invert: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        if strength < 0:
            raise InputError(
                f"strength must not be negative, got {strength}",
                hint="such as strength=1.0; 0 leaves images nearly as they are",
            )
        common: dict[str, Any] = {"keys": keys, "allow_missing_keys": allow_missing_keys}
        gamma = (1 / (1 + strength), 1 + strength)
        parts = [
            # not RandAdjustContrastd(invert_image=True), which turns the image back after its gamma
            RandLambdad(func=_turned_round, prob=invert, **common),
            RandAdjustContrastd(prob=prob, gamma=gamma, retain_stats=True, **common),
            RandBiasFieldd(prob=prob, degree=3, coeff_range=(-0.15 * strength, 0.15 * strength), **common),
            _RandLowResolutiond(prob=prob, zoom_range=(1 / (1 + strength), 1.0), **common),
            RandGaussianSmoothd(
                prob=prob, **{f"sigma_{axis}": (0.1, 0.1 + 0.9 * strength) for axis in "xyz"}, **common
            ),
            RandGaussianNoised(prob=prob, std=0.15 * strength, **common),
        ]
        super().__init__(parts)


def strong_randomised(strong_key: str = "strong") -> list[dict[str, Any]]:
    """Configs of the strong view that teaches most where contrast differs: GIN on every case, inverted in half of them.

    Args:
        strong_key: of the strong view.

    >>> [config["_target_"].rpartition(".")[2] for config in strong_randomised()]
    ['RandGINd', 'RandContrastInversiond']
    """
    return randomised_parts(strong_key)


def _turned_round(image: Any) -> Any:
    return image.max() + image.min() - image


class StrongViewd(MapTransform, Randomizable):
    """Adds ``strong``, a copy of the image under random appearance, or through transforms of your own.

    Args:
        keys: the image key.
        strong_key: where the copy goes.
        prob: as in ``RandAppearanced``; higher than for plain augmentation.
        strength: as in ``RandAppearanced``.
        invert: as in ``RandAppearanced``.
        allow_missing_keys: skip a missing image.
        transforms: what makes the strong view instead, on ``strong_key``: dictionary transforms, or their MONAI configs
            (``strong_randomised()`` gives those of the preset ``randomised``). Only intensities may change.

    Raises:
        InputError: more than one key.

    >>> import torch
    >>> from monai_transfer.data.randomisation import StrongViewd
    >>> transform = StrongViewd(prob=1.0)
    >>> _ = transform.set_random_state(0)
    >>> image = torch.rand(1, 16, 16)
    >>> out = transform({"image": image})
    >>> sorted(out), torch.equal(out["image"], image), torch.equal(out["strong"], image)
    (['image', 'strong'], True, False)
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        strong_key: str = "strong",
        prob: float = 0.8,
        strength: float = 1.0,
        invert: float = 0.0,
        allow_missing_keys: bool = False,
        transforms: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise InputError(
                f"StrongViewd takes one image key, not {self.keys}", hint="give each image a transform of its own"
            )
        self.strong_key = strong_key
        self.appearance: Compose = (
            RandAppearanced(strong_key, prob, strength, invert) if transforms is None else composed(transforms)
        )

    def set_random_state(self, seed: int | None = None, state: Any = None) -> StrongViewd:
        super().set_random_state(seed, state)
        self.appearance.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            result[self.strong_key] = image.clone() if isinstance(image, torch.Tensor) else image.copy()
            result = dict(self.appearance(result))
        return result


def strong_views(method: Any, view: Any, domain: str) -> list[Any]:
    """``[view]`` where the method asks for a strongly augmented view of that domain's images, else nothing.

    Args:
        method: whose ``needs`` are asked.
        view: the transform, e.g. ``StrongViewd``.
        domain: ``source`` or ``target``.

    >>> from monai_transfer.methods.fixmatch import Fixmatch
    >>> len(strong_views(Fixmatch(), StrongViewd(), "target")), len(strong_views(Fixmatch(), StrongViewd(), "source"))
    (1, 0)
    """
    return [view] if any(need.startswith(f"{domain}_strong") for need in getattr(method, "needs", ())) else []
