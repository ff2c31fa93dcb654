"""Patches that are rotated and scaled in millimetres, and read in one step from the image around them.

    x_in = c + S^-1 R diag(1 / z) S (x_out - c_out),     S: mm per voxel, R: a rotation, z: magnification

MONAI's ``RandAffine`` turns voxels: where slices are thick a rotation there shears the anatomy, and a patch that is cut
first and turned then fills its corners with padding. Here the angle is one in space, the patch's centre is chosen so
that the turned patch stays inside the image as far as it can, and only the patch is interpolated, once, whatever the
image's size. Without a rotation or scaling the voxels are copied as they are.

Paper: Isensee et al., nnU-Net, Nature Methods 2021, arXiv:1809.10486 (which axes to turn where voxels are anisotropic)
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import InvertibleTransform, MapTransform, Randomizable
from monai.utils import TraceKeys, TransformBackends, ensure_tuple_rep
from torch import Tensor

from monai_transfer.data.augmentation.base import as_image, between
from monai_transfer.data.augmentation.sampling import sample
from monai_transfer.errors import InputError

__all__ = ["RandPhysicalAffine", "RandPhysicalAffined"]

_PADDING = ("zeros", "border", "reflection")


class RandPhysicalAffine(InvertibleTransform, Randomizable):
    """A patch at a random place, at random rotated and scaled in millimetres.

    Args:
        spatial_size: voxels per axis of the patch; ``None`` keeps the image's. Larger than the image: padded around.
        rotate: largest angle in radians, either way, about each axis (3D: three numbers; 2D: one).
        scale: least and greatest magnification; above 1 structures become larger. The exponent is drawn uniformly, so
            that a shrinking by half is as likely as a doubling.
        rotate_prob, scale_prob: probability of each.
        scale_axes: which axes are scaled; default all. Thick slices are better left.
        spacing: mm per voxel and axis; ``None``: what the image's own affine says, 1 for a plain tensor.
        mode: ``"bilinear"`` or ``"nearest"``.
        padding_mode: ``"zeros"``, ``"border"`` or ``"reflection"``: what fills a patch outside the image.
        random_center: patches from anywhere; else from the image's middle.

    Raises:
        InputError: sizes, ranges or modes that make no sense, or an image of other dimensions than they.

    Example:
        >>> turn = RandPhysicalAffine((24, 24, 6), rotate=(0.5, 0, 0), rotate_prob=1.0, spacing=(1, 1, 5))
        >>> turn.set_random_state(0)(torch.rand(1, 40, 40, 12)).shape
        torch.Size([1, 24, 24, 6])
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        spatial_size: Sequence[int] | None = None,
        rotate: Sequence[float] | float = 0.0,
        scale: Sequence[float] = (1.0, 1.0),
        rotate_prob: float = 0.2,
        scale_prob: float = 0.2,
        scale_axes: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
        mode: str = "bilinear",
        padding_mode: str = "zeros",
        random_center: bool = True,
    ) -> None:
        self.spatial_size = None if spatial_size is None else [int(n) for n in spatial_size]
        self.rotate = [abs(float(r)) for r in ([rotate] if isinstance(rotate, (int, float)) else rotate)]
        self.scale = between(scale, "scale", low=1e-3)
        self.rotate_prob, self.scale_prob = float(rotate_prob), float(scale_prob)
        self.scale_axes = None if scale_axes is None else [int(a) for a in scale_axes]
        self.spacing = None if spacing is None else [float(v) for v in spacing]
        self.mode, self.padding_mode, self.random_center = _modes(mode), _paddings(padding_mode), random_center
        if self.spacing is not None and min(self.spacing) <= 0:
            raise InputError(
                f"the spacing must be positive, not {self.spacing}", hint="give mm per axis, such as (1, 1, 3)"
            )
        self.angles: np.ndarray = np.zeros(0)
        self.factors: np.ndarray = np.zeros(0)
        self.matrix: np.ndarray = np.zeros((0, 0))

    def randomize(self, data: Tensor, center: Sequence[float] | None = None) -> None:
        """Draw angles (``angles``, radians), magnifications (``factors``) and the place; sets ``matrix``.

        Args:
            data: the image, C x spatial.
            center: index that the patch should lie around, as far as the image allows; default anywhere.
        """
        shape = np.asarray(data.shape[1:])
        dims = len(shape)
        size = np.asarray(self.spatial_size if self.spatial_size is not None else shape)
        spacing = np.asarray(self._spacing(data, dims))
        if len(size) != dims or len(spacing) != dims:
            raise InputError(
                f"an image of {dims} axes, where size or spacing has {len(size)} or {len(spacing)}",
                hint="give one number for each axis of the image",
            )
        limits = ensure_tuple_rep(self.rotate[0], 3) if dims == 3 and len(self.rotate) == 1 else tuple(self.rotate)
        if len(limits) != (3 if dims == 3 else 1):
            raise InputError(
                f"{dims}D images turn about {3 if dims == 3 else 1} axes, rotate names {len(limits)}",
                hint="give one limit for each of them",
            )
        turned, scaled = self.R.rand() < self.rotate_prob, self.R.rand() < self.scale_prob
        angles = np.array([self.R.uniform(-limit, limit) for limit in limits])
        self.angles = angles if turned else np.zeros_like(angles)
        factor = float(np.exp(self.R.uniform(*np.log(self.scale))))
        axes = range(dims) if self.scale_axes is None else self.scale_axes
        self.factors = np.array([factor if scaled and axis in axes else 1.0 for axis in range(dims)])
        # R turns the patch's axes in space; what is magnified reads fewer millimetres
        linear = np.diag(1 / spacing) @ _rotation(self.angles) @ np.diag(spacing / self.factors)
        half = np.abs(linear) @ ((size - 1) / 2)
        middle = (shape - 1) / 2
        place = self.R.uniform(size=dims)
        if center is not None:
            wanted = np.asarray(center, dtype=float)
        elif self.random_center:
            wanted = half + place * (shape - 1 - 2 * half)
        else:
            wanted = middle
        fits = 2 * half <= shape - 1 + 1e-9
        wanted = np.where(fits, np.clip(wanted, half, np.maximum(shape - 1 - half, half)), middle)
        offset = wanted - linear @ ((size - 1) / 2)
        if np.allclose(linear, np.eye(dims)):
            offset = np.floor(offset + 0.5 - 1e-9)  # whole voxels: a copy
        self.matrix = np.block([[linear, offset[:, None]], [np.zeros((1, dims)), np.ones((1, 1))]])

    def _spacing(self, data: Tensor, dims: int) -> Sequence[float]:
        if self.spacing is not None:
            return self.spacing
        if isinstance(data, MetaTensor):
            return [float(v) for v in affine_to_spacing(data.affine, dims)]
        return [1.0] * dims

    def __call__(
        self, img: Any, mode: str | None = None, padding_mode: str | None = None, randomize: bool = True
    ) -> Tensor:
        image = as_image(img)
        if randomize:
            self.randomize(image)
        shape = tuple(image.shape[1:])
        size = tuple(self.spatial_size or shape)
        how = {"mode": mode or self.mode, "padding_mode": padding_mode or self.padding_mode}
        if not isinstance(image, MetaTensor):
            return sample(image, self.matrix, size, **how)
        out = MetaTensor(sample(image.as_tensor(), self.matrix, size, **how)).copy_meta_from(image)
        extra = {"matrix": self.matrix.tolist(), **how}
        return self.push_transform(out, affine=self.matrix, orig_size=shape, extra_info=extra)

    def inverse(self, data: Tensor) -> Tensor:
        """The patch back in the image's own grid; outside the patch is padding."""
        done = self.pop_transform(data)
        extra = done[TraceKeys.EXTRA_INFO]
        back = np.linalg.inv(np.asarray(extra["matrix"]))
        plain = data.as_tensor() if isinstance(data, MetaTensor) else data
        out = sample(plain, back, tuple(done[TraceKeys.ORIG_SIZE]), extra["mode"], "zeros")
        if not isinstance(data, MetaTensor):
            return out
        result = MetaTensor(out).copy_meta_from(data)
        moved = np.eye(len(data.affine))
        moved[: len(back) - 1, : len(back) - 1], moved[: len(back) - 1, -1] = back[:-1, :-1], back[:-1, -1]
        result.affine = data.affine @ torch.as_tensor(moved, dtype=data.affine.dtype)
        return result


class RandPhysicalAffined(Randomizable, MapTransform, InvertibleTransform):
    """``RandPhysicalAffine`` of several images with one draw; a share of the patches lies about a labelled voxel.

    Args:
        keys: images and labels of one grid.
        label_key: the label that ``foreground`` looks at.
        foreground: share of the patches that hold a labelled voxel (a class drawn evenly among those of the case,
            then a voxel of it); 0 looks at no label.
        mode, padding_mode: one for all keys, or one for each.
        allow_missing_keys: skip keys that a case lacks.
        options: further arguments of ``RandPhysicalAffine``.

    Raises:
        InputError: ``foreground`` is not a share, or an argument of ``RandPhysicalAffine`` is refused.

    Example:
        >>> case = {"image": torch.rand(1, 40, 40), "label": torch.zeros(1, 40, 40)}
        >>> case["label"][0, 30:34, 5:9] = 2
        >>> crop = RandPhysicalAffined(["image", "label"], (16, 16), foreground=1.0, mode=["bilinear", "nearest"])
        >>> int(crop.set_random_state(0)(case)["label"].max())
        2
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: Sequence[int] | None = None,
        label_key: str = "label",
        foreground: float = 0.0,
        mode: str | Sequence[str] = "bilinear",
        padding_mode: str | Sequence[str] = "zeros",
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if not 0 <= foreground <= 1:
            raise InputError(f"foreground is a share between 0 and 1, not {foreground}", hint="such as foreground=0.5")
        self.array = RandPhysicalAffine(spatial_size, **options)
        self.label_key, self.foreground = label_key, float(foreground)
        self.mode = [_modes(m) for m in ensure_tuple_rep(mode, len(self.keys))]
        self.padding_mode = [_paddings(m) for m in ensure_tuple_rep(padding_mode, len(self.keys))]

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandPhysicalAffined:
        """Seed its own and its array transform's draws."""
        super().set_random_state(seed, state)
        self.array.set_random_state(seed, state)
        return self

    def randomize(self, data: Mapping[Hashable, Any]) -> list[int] | None:
        """The labelled voxel that this case's patch is to lie about, if any."""
        if not self.foreground or not self.R.rand() < self.foreground:
            return None
        label = as_image(data[self.label_key])[0]
        classes = [value for value in torch.unique(label).tolist() if value > 0]
        if not classes:
            return None
        places = torch.nonzero((label == classes[self.R.randint(len(classes))]).flatten()).flatten()
        place = int(places[self.R.randint(len(places))])
        return [int(i) for i in np.unravel_index(place, tuple(label.shape))]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        center = self.randomize(result)
        drawn: tuple[int, ...] | None = None
        for key, mode, padding in self.key_iterator(result, self.mode, self.padding_mode):
            image = as_image(result[key])
            if drawn is None:
                self.array.randomize(image, center)
                drawn = tuple(image.shape[1:])
            elif tuple(image.shape[1:]) != drawn:
                raise InputError(
                    f"{key!r} has the shape {tuple(image.shape[1:])}, the first key {drawn}",
                    hint="bring all keys onto one grid first (ResampleToMatchd)",
                )
            result[key] = self.array(image, mode, padding, randomize=False)
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Each key back in its image's own grid."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.array.inverse(result[key])
        return result


def _rotation(angles: np.ndarray) -> np.ndarray:
    """2 x 2 of one angle; 3 x 3 of three: about the first axis, then the second, then the third."""
    if len(angles) == 1:
        return _plane(2, 0, 1, angles[0])
    return _plane(3, 1, 2, angles[0]) @ _plane(3, 0, 2, angles[1]) @ _plane(3, 0, 1, angles[2])


def _plane(dims: int, first: int, second: int, angle: float) -> np.ndarray:
    turn = np.eye(dims)
    turn[first, first] = turn[second, second] = np.cos(angle)
    turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
    return turn


def _modes(mode: Any) -> str:
    if str(mode) not in ("bilinear", "nearest"):
        raise InputError(f"no interpolation {mode!r}", hint="bilinear or nearest")
    return str(mode)


def _paddings(mode: Any) -> str:
    if str(mode) not in _PADDING:
        raise InputError(f"no padding {mode!r}", hint=f"one of {', '.join(_PADDING)}")
    return str(mode)
