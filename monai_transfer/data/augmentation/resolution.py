"""Lower resolution in millimetres: an image as a scanner with larger voxels would have given it, on its own grid.

    n'_i = n_i min(1, s_i / r),   r = f min_i s_i,   f drawn between 1 and ``coarsest``

Axes whose voxels are as large as r already stay as they are: an axial series of 1 x 1 x 5 mm at r = 2 mm is made
coarser in its slices alone. MONAI's ``RandSimulateLowResolution`` takes the same factor off every axis.

Paper: Isensee et al., nnU-Net, Nature Methods 2021, arXiv:1809.10486 (simulation of low resolution; there voxels are
dropped on the way down, here averaged, as a larger voxel averages)
"""

from __future__ import annotations

from collections.abc import Sequence

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from torch import Tensor
from torch.nn import functional as F

from monai_transfer.data.augmentation.base import RandIntensity, RandIntensityd
from monai_transfer.errors import InputError

__all__ = ["RandPhysicalLowResolution", "RandPhysicalLowResolutiond"]


class RandPhysicalLowResolution(RandIntensity):
    """An image at a lower resolution, brought back to its own grid.

    Args:
        prob: probability.
        coarsest: up to how many times the finest axis' voxel size, at least 1.
        spacing: mm per voxel and axis; ``None``: what the image's own affine says, 1 for a plain tensor.

    Raises:
        InputError: ``prob`` is not a probability, or ``coarsest`` is below 1.

    Example:
        >>> import torch
        >>> coarse = RandPhysicalLowResolution(1.0, spacing=(1, 1, 5)).set_random_state(0)
        >>> out = coarse(torch.rand(1, 16, 16, 8))
        >>> [round(v, 2) for v in coarse.resolution], coarse.shape
        ([1.72, 1.72, 5.0], [9, 9, 8])
    """

    def __init__(self, prob: float = 0.25, coarsest: float = 2.0, spacing: Sequence[float] | None = None) -> None:
        super().__init__(prob)
        if coarsest < 1:
            raise InputError(f"coarsest is a factor of at least 1, not {coarsest}", hint="such as coarsest=2")
        self.coarsest = float(coarsest)
        self.spacing = None if spacing is None else [float(v) for v in spacing]
        self.resolution: list[float] = []
        self.shape: list[int] = []

    def draw(self, image: Tensor) -> None:
        """Draw the resolution: ``resolution`` (mm) and ``shape`` (voxels) per axis."""
        size = image.shape[1:]
        if self.spacing is not None:
            spacing = self.spacing
        elif isinstance(image, MetaTensor):
            spacing = [float(v) for v in affine_to_spacing(image.affine, len(size))]
        else:
            spacing = [1.0] * len(size)
        if len(spacing) != len(size):
            raise InputError(
                f"an image of {len(size)} axes, where spacing names {len(spacing)}",
                hint="give one number of mm for each axis",
            )
        resolution = min(spacing) * self.R.uniform(1.0, self.coarsest)
        self.resolution = [max(s, resolution) for s in spacing]
        self.shape = [max(1, round(n * s / r)) for n, s, r in zip(size, spacing, self.resolution, strict=True)]

    def apply(self, image: Tensor) -> Tensor:
        small = F.interpolate(
            image[None], size=self.shape, mode="area"
        )  # a larger voxel holds the mean of what it covers
        mode = "trilinear" if image.ndim == 4 else "bilinear"
        return F.interpolate(small, size=image.shape[1:], mode=mode, align_corners=False)[0]


class RandPhysicalLowResolutiond(RandIntensityd):
    """Dictionary face of ``RandPhysicalLowResolution``.

    Args:
        keys: image keys (C x spatial).
        prob, coarsest, spacing: as of ``RandPhysicalLowResolution``.
        allow_missing_keys: skip keys that a case lacks.

    Example:
        >>> import torch
        >>> coarse = RandPhysicalLowResolutiond("image", 1.0)
        >>> coarse({"image": torch.rand(1, 8, 8)})["image"].shape
        torch.Size([1, 8, 8])
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.25,
        coarsest: float = 2.0,
        spacing: Sequence[float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, RandPhysicalLowResolution(prob, coarsest, spacing), allow_missing_keys)
