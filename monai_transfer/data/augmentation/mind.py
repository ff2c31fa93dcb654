"""MIND-SSC: an input that hardly depends on contrast, of 12 channels in 3D (4 in 2D) for each image channel.

    D_jk(x) = sum over a patch P of  G(p) (I(x + d_j + p) - I(x + d_k + p))^2,    MIND_jk = exp(-D_jk / V),
    V = mean over all pairs of D_jk

The pairs (j, k) are those of the voxel's six (in 2D four) neighbours that lie sqrt(2) apart, not opposite ones. Turning
contrast round, or scaling it, changes nothing. A network takes 12 channels then, so weights made for images do not fit
its first layer.

Paper: Heinrich, Jenkinson, Papiez, Brady and Schnabel, Towards Realtime Multimodal Fusion for Image-Guided
Interventions Using Self-similarities, MICCAI 2013. The authors' later code takes the least of the D_jk off first, so
that the greatest value is 1 (``greatest_is_one``), uses a box of radius 2 and neighbours 2 voxels away (``radius=2,
distance=2, sigma=None``); the definition above is the default.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import combinations
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_dst_type
from torch import Tensor
from torch.nn import functional as F

from monai_transfer.data.augmentation.base import as_image
from monai_transfer.errors import InputError

__all__ = ["MINDSSC", "MINDSSCd"]


class MINDSSC(Transform):
    """The self-similarity context of each voxel, as channels.

    Args:
        radius: of the patch, in voxels.
        sigma: of the Gaussian weights in the patch, in voxels; ``None``: all the same.
        distance: of the six neighbours, in voxels.
        greatest_is_one: scale each voxel's greatest value to 1.

    Raises:
        InputError: an image that is neither 2D nor 3D.

    Example:
        >>> image = torch.rand(1, 12, 12, 12)
        >>> mind = MINDSSC()(image)
        >>> mind.shape, bool(torch.allclose(mind, MINDSSC()(1 - image), atol=1e-4))
        (torch.Size([12, 12, 12, 12]), True)
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self, radius: int = 1, sigma: float | None = 1.0, distance: int = 1, greatest_is_one: bool = False
    ) -> None:
        if radius < 0 or distance < 1 or (sigma is not None and sigma <= 0):
            raise InputError(
                "MIND wants a radius, a distance of at least 1 and a positive sigma",
                hint="the defaults are radius=1, distance=1, sigma=1.0",
            )
        self.radius, self.sigma, self.distance = int(radius), sigma, int(distance)
        self.greatest_is_one = bool(greatest_is_one)

    def __call__(self, img: Any) -> Tensor:
        image = as_image(img)
        plain = image.as_tensor() if hasattr(image, "as_tensor") else image
        if plain.ndim not in (3, 4):
            raise InputError(
                f"MIND takes C x spatial in 2D or 3D, not {tuple(plain.shape)}",
                hint="put the channel first (EnsureChannelFirstd)",
            )
        plain = plain if plain.dtype == torch.float64 else plain.float()
        return convert_to_dst_type(self._channels(plain), image, dtype=plain.dtype)[0]

    def _channels(self, image: Tensor) -> Tensor:
        dims = image.ndim - 1
        steps = [
            [side * self.distance if a == axis else 0 for a in range(dims)] for axis in range(dims) for side in (-1, 1)
        ]
        shifted = [_shift(image, step, self.distance) for step in steps]
        # opposite neighbours share their axis; all others are sqrt(2) steps apart
        pairs = [(j, k) for j, k in combinations(range(len(steps)), 2) if j // 2 != k // 2]
        distances = torch.stack([self._patch((shifted[j] - shifted[k]) ** 2) for j, k in pairs], dim=1)  # C x pairs
        mean = distances.mean(1, keepdim=True)
        if self.greatest_is_one:
            distances = distances - distances.amin(1, keepdim=True)
        typical = mean.mean(tuple(range(1, mean.ndim)), keepdim=True)
        mean = torch.clamp(mean, 1e-3 * typical, 1e3 * typical).clamp_min(1e-12)  # flat ground divides by no noise
        return torch.exp(-distances / mean).flatten(0, 1)

    def _patch(self, squares: Tensor) -> Tensor:
        """Weighted sum over the patch, one axis after the other; the border is repeated."""
        places = torch.arange(-self.radius, self.radius + 1, dtype=squares.dtype, device=squares.device)
        weights = torch.ones_like(places) if self.sigma is None else torch.exp(-(places**2) / (2 * self.sigma**2))
        weights = weights / weights.sum()
        dims = squares.ndim - 1
        convolve = F.conv3d if dims == 3 else F.conv2d
        out = F.pad(squares[:, None], [self.radius] * (2 * dims), mode="replicate")
        for axis in range(dims):
            out = convolve(out, weights.view([1, 1, *[-1 if a == axis else 1 for a in range(dims)]]))
        return out[:, 0]


def _shift(image: Tensor, step: list[int], margin: int) -> Tensor:
    """The image at x + step; its border is repeated."""
    dims = image.ndim - 1
    padded = F.pad(image[None], [margin] * (2 * dims), mode="replicate")[0]
    return padded[
        (slice(None), *(slice(margin + s, margin + s + n) for s, n in zip(step, image.shape[1:], strict=True)))
    ]


class MINDSSCd(MapTransform):
    """Dictionary face of ``MINDSSC``.

    Args:
        keys: image keys (1 x spatial).
        radius, sigma, distance, greatest_is_one: as of ``MINDSSC``.
        allow_missing_keys: skip keys that a case lacks.

    Example:
        >>> MINDSSCd("image")({"image": torch.rand(1, 16, 16)})["image"].shape
        torch.Size([4, 16, 16])
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection,
        radius: int = 1,
        sigma: float | None = 1.0,
        distance: int = 1,
        greatest_is_one: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.array = MINDSSC(radius, sigma, distance, greatest_is_one)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.array(result[key])
        return result
