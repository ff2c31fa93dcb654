"""GIN: an image seen through a random shallow network, so that a network learns shapes and not one scanner's contrast.

    g = 4 convolutions of width 2, kernels of 1 or 3 per layer, weights and one shift per channel ~ N(0, 1),
        leaky ReLU between them, none behind the last
    x' = a g(x) + (1 - a) x,   a ~ U(0, 1),   then brought back to the norm of x

Paper: Ouyang, Chen, Li, Li, Qin, Bai and Rueckert, Causality-inspired Single-source Domain Generalization for Medical
Image Segmentation, IEEE TMI 2023, arXiv:2111.12525

**Which variant.** By default the paper's and its authors' code: slope .01, and the Frobenius norm of each channel
restored. ``slope=0.2, restore="statistics"`` (each channel's mean and standard deviation restored) is the variant of
the preset ``randomised``, which our numbers belong to. A network is drawn for each case, not for each batch. ``blend``
is the paper's second part (IPA): two such views, mixed by a smooth random map that follows no anatomy, so that a shape
may differ in contrast from place to place.

Use it behind intensity normalisation, on images of moderate values. Not for regression from intensities, nor for scales
that mean something (Hounsfield units, SUV) unless that was measured to help.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.config import KeysCollection
from torch import Tensor
from torch.nn import functional as F

from monai_transfer.data.augmentation.base import RandIntensity, RandIntensityd, restore_statistics
from monai_transfer.errors import InputError

__all__ = ["RandGIN", "RandGINd"]


class RandGIN(RandIntensity):
    """A random shallow convolutional network as an augmentation.

    Args:
        prob: probability.
        layers, width: convolutions, and their channels inside.
        kernels: sizes to draw from, for each layer; odd.
        slope: of the leaky ReLU below 0.
        restore: ``"norm"`` (the Frobenius norm of each channel, as in the paper), ``"statistics"`` (its mean and
            standard deviation) or ``"none"``.
        blend: blend two networks' views by a smooth random map (IPA).
        control_points: points per axis of that map, between which it is interpolated.

    Raises:
        InputError: an even kernel, fewer than one layer, or an unknown ``restore``.

    Example:
        >>> image = torch.rand(1, 16, 16, 16)
        >>> out = RandGIN(1.0).set_random_state(0)(image)
        >>> out.shape, round(float(out.norm() / image.norm()), 3)
        (torch.Size([1, 16, 16, 16]), 1.0)
    """

    def __init__(
        self,
        prob: float = 1.0,
        layers: int = 4,
        width: int = 2,
        kernels: tuple[int, ...] | list[int] = (1, 3),
        slope: float = 0.01,
        restore: str = "norm",
        blend: bool = False,
        control_points: int = 4,
    ) -> None:
        super().__init__(prob)
        if layers < 1 or width < 1 or not kernels or any(k % 2 == 0 or k < 1 for k in kernels):
            raise InputError(
                f"GIN wants layers, a width and odd kernels, not {layers}, {width}, {list(kernels)}",
                hint="the defaults are layers=4, width=2, kernels=(1, 3)",
            )
        if restore not in ("norm", "statistics", "none"):
            raise InputError(f"nothing to restore by the name {restore!r}", hint="norm, statistics or none")
        self.layers, self.width, self.kernels = int(layers), int(width), [int(k) for k in kernels]
        self.slope, self.restore = float(slope), restore
        self.blend, self.control_points = bool(blend), int(control_points)
        self.networks: list[list[tuple[np.ndarray, np.ndarray]]] = []
        self.alphas: list[float] = []
        self.map: np.ndarray | None = None

    def draw(self, image: Tensor) -> None:
        """Draw ``networks`` (weights and shifts by layer), ``alphas`` and, for IPA, the control points ``map``."""
        channels, dims = image.shape[0], image.ndim - 1
        self.networks, self.alphas = [], []
        for _ in range(2 if self.blend else 1):
            network, inside = [], channels
            for layer in range(self.layers):
                outside = channels if layer == self.layers - 1 else self.width
                kernel = self.kernels[self.R.randint(len(self.kernels))]
                weight = self.R.standard_normal((outside, inside, *[kernel] * dims)).astype(np.float32)
                network.append((weight, self.R.standard_normal(outside).astype(np.float32)))
                inside = outside
            self.networks.append(network)
            self.alphas.append(float(self.R.uniform()))
        self.map = self.R.uniform(size=[self.control_points] * dims).astype(np.float32) if self.blend else None

    def apply(self, image: Tensor) -> Tensor:
        views = [self._view(image, network, a) for network, a in zip(self.networks, self.alphas, strict=True)]
        if self.map is None:
            return views[0]
        mode = "trilinear" if image.ndim == 4 else "bicubic"
        points = torch.as_tensor(self.map, device=image.device, dtype=image.dtype)[None, None]
        share = F.interpolate(points, size=image.shape[1:], mode=mode, align_corners=True)[0]
        share = (share - share.min()) / (share.max() - share.min()).clamp_min(1e-8)
        return share * views[0] + (1 - share) * views[1]

    def _view(self, image: Tensor, network: list[tuple[np.ndarray, np.ndarray]], alpha: float) -> Tensor:
        if network[0][0].shape[1] != image.shape[0]:
            raise InputError(
                f"GIN was drawn for {network[0][0].shape[1]} channels, this image has {image.shape[0]}",
                hint="give each number of channels a transform of its own",
            )
        convolve = F.conv3d if image.ndim == 4 else F.conv2d
        x = image[None]
        for layer, (weight, shift) in enumerate(network):
            w, b = (torch.as_tensor(v, device=image.device, dtype=image.dtype) for v in (weight, shift))
            x = convolve(x, w, b, padding=weight.shape[-1] // 2)
            if layer < len(network) - 1:
                x = F.leaky_relu(x, self.slope)
        mixed = alpha * x[0] + (1 - alpha) * image
        if self.restore == "norm":
            axes = tuple(range(1, image.ndim))
            size = [torch.linalg.vector_norm(v, dim=axes, keepdim=True) for v in (image, mixed)]
            mixed = mixed * size[0] / (size[1] + 1e-5)
        elif self.restore == "statistics":
            mixed = restore_statistics(mixed, image)
        return mixed


class RandGINd(RandIntensityd):
    """Dictionary face of ``RandGIN``, whose other arguments it takes. Keys must have equally many channels.

    Args:
        keys: image keys (C x spatial).
        prob, layers, width, kernels, slope, restore, blend, control_points: as of ``RandGIN``.
        allow_missing_keys: skip keys that a case lacks.

    Example:
        >>> case = {"image": torch.rand(1, 16, 16)}
        >>> round(float(RandGINd("image", restore="statistics")(case)["image"].mean() - case["image"].mean()), 4) + 0.0
        0.0
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 1.0,
        layers: int = 4,
        width: int = 2,
        kernels: tuple[int, ...] | list[int] = (1, 3),
        slope: float = 0.01,
        restore: str = "norm",
        blend: bool = False,
        control_points: int = 4,
        allow_missing_keys: bool = False,
    ) -> None:
        array = RandGIN(prob, layers, width, kernels, slope, restore, blend, control_points)
        super().__init__(keys, array, allow_missing_keys)
