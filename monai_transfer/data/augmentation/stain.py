"""Stain jitter: haematoxylin, eosin and the rest of an RGB histology image made stronger or weaker, each by itself.

    OD = -log(I / I_0),   s = OD M^-1,   s'_k = a_k s_k + b_k,   I' = I_0 exp(-s' M)
    a_k ~ U(1 - t, 1 + t),   b_k ~ U(-t, t)

Paper: Tellez et al., Whole-Slide Mitosis Detection in H&E Breast Histology Using PHH3 as a Reference, IEEE TMI 2018,
arXiv:1808.05896 (the jitter); Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution,
Analytical and Quantitative Cytology and Histology 2001 (the matrix M). Tellez et al., Medical Image Analysis 2019,
arXiv:1902.06543, call t = .05 light and t = .2 strong.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.config import KeysCollection
from torch import Tensor

from monai_transfer.data.augmentation.base import RandIntensity, RandIntensityd
from monai_transfer.errors import InputError

__all__ = ["RandStain", "RandStaind", "refuse_unless_rgb"]

_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))  # haematoxylin, eosin, DAB: their RGB absorption


def refuse_unless_rgb(image: Tensor, what: str) -> None:
    """Refuse an image that has not three channels.

    Args:
        image: C x spatial.
        what: the word for who asks, in the error.

    Raises:
        InputError: it has another number of channels.

    >>> try:
    ...     refuse_unless_rgb(torch.zeros(1, 8, 8), "RandStain")
    ... except InputError as error:
    ...     print(error.fault)
    RandStain wants 3 colour channels, this image has 1
    """
    if image.shape[0] != 3:
        raise InputError(
            f"{what} wants 3 colour channels, this image has {image.shape[0]}", hint="leave it out for grey images"
        )


class RandStain(RandIntensity):
    """Jitter the stains of an RGB image.

    Args:
        prob: probability.
        strength: t above.
        value_range: the values of black and of white light; ``None``: the image's least and greatest value, so that it
            may stand behind a normalisation.

    Raises:
        InputError: an image without three channels.

    Example:
        >>> image = torch.rand(3, 8, 8)
        >>> out = RandStain(1.0, 0.2, (0, 1)).set_random_state(0)(image)
        >>> out.shape, bool(0 <= out.min() and out.max() <= 1)
        (torch.Size([3, 8, 8]), True)
    """

    def __init__(
        self, prob: float = 0.5, strength: float = 0.2, value_range: tuple[float, float] | list[float] | None = None
    ) -> None:
        super().__init__(prob)
        if not 0 <= strength <= 1:
            raise InputError(f"strength lies between 0 and 1, not at {strength}", hint="such as strength=0.2")
        if value_range is not None and not value_range[0] < value_range[1]:
            raise InputError(
                f"value_range is black, then white, not {value_range}", hint="such as value_range=(0, 255)"
            )
        self.strength, self.value_range = float(strength), value_range
        self.factors, self.offsets = np.ones(3), np.zeros(3)

    def draw(self, image: Tensor) -> None:
        """Draw ``factors`` and ``offsets`` of the three stains."""
        refuse_unless_rgb(image, "stain jitter")
        self.factors = self.R.uniform(1 - self.strength, 1 + self.strength, 3)
        self.offsets = self.R.uniform(-self.strength, self.strength, 3)

    def apply(self, image: Tensor) -> Tensor:
        refuse_unless_rgb(image, "stain jitter")
        black, white = self.value_range or (float(image.min()), float(image.max()))
        span = max(white - black, 1e-12)
        absorption = torch.as_tensor(np.array(_STAINS), dtype=image.dtype, device=image.device)
        absorption = absorption / absorption.norm(dim=1, keepdim=True)
        density = -torch.log(((image - black) / span).clamp(1 / 255, 1))
        stains = torch.einsum("c...,ck->k...", density, torch.linalg.inv(absorption))
        shape = (3, *[1] * (image.ndim - 1))
        factors, offsets = (torch.as_tensor(v).to(image).view(shape) for v in (self.factors, self.offsets))
        density = torch.einsum("k...,kc->c...", factors * stains + offsets, absorption)
        return black + span * torch.exp(-density).clamp(0, 1)


class RandStaind(RandIntensityd):
    """Dictionary face of ``RandStain``.

    Args:
        keys: image keys (3 x spatial).
        prob, strength, value_range: as of ``RandStain``.
        allow_missing_keys: skip keys that a case lacks.

    Example:
        >>> RandStaind("image", 1.0)({"image": torch.rand(3, 8, 8)})["image"].shape
        torch.Size([3, 8, 8])
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        strength: float = 0.2,
        value_range: tuple[float, float] | list[float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, RandStain(prob, strength, value_range), allow_missing_keys)
