"""nnU-Net v2's preprocessing and tiling as MONAI transforms and a MONAI inferer.

Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, Nature Methods
2021; what the released package computes (nnunetv2 2.8), told by running it. Images here stay in MONAI's axis order: the
weights were turned instead (``nnunet.network``). This file needs MONAI, PyTorch, NumPy and SciPy alone: a bundle made
from an nnU-Net model carries a copy in ``scripts/``, with which it runs without this package.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.inferers import Inferer
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import convert_to_tensor
from scipy import ndimage
from torch import Tensor, nn

__all__ = [
    "EvenTilesInferer",
    "FoldMean",
    "NormalizeChannelsd",
    "RegionsToLabelsd",
    "ResizeToSpacingd",
    "bundle_weights",
    "folds_in",
    "nonzero",
    "resize_image",
    "resize_labels",
    "thick_axis",
]


def nonzero(image: Any) -> Any:
    """What nnU-Net crops to: ``select_fn`` of MONAI's ``CropForegroundd``."""
    return image != 0


class NormalizeChannelsd(MapTransform):
    """Each channel by nnU-Net's scheme for it; before resampling, as nnU-Net does.

    Args:
        keys: images, C x spatial.
        channels: for each channel a dictionary with ``scheme``: ``CTNormalization`` (clip to ``low`` and ``high``, then
            ``mean`` and ``std`` of the training data's foreground), ``ZScoreNormalization`` (the image's own mean and
            standard deviation; with ``masked`` those of its nonzero region, holes filled, and zero outside stays),
            ``RescaleTo01Normalization``, ``RGBTo01Normalization`` (by 255) or ``NoNormalization``.
        allow_missing_keys: as in MONAI.

    >>> ct = {"scheme": "CTNormalization", "low": -100.0, "high": 300.0, "mean": 100.0, "std": 50.0}
    >>> image = torch.tensor([[[-1000.0, 100.0, 150.0]]])
    >>> NormalizeChannelsd("image", [ct])({"image": image})["image"].tolist()  # clipped to -100 first
    [[[-4.0, 0.0, 1.0]]]
    """

    def __init__(
        self, keys: KeysCollection, channels: Sequence[Mapping[str, Any]], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.channels = [dict(channel) for channel in channels]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalised, float32."""
        d = dict(data)
        for key in self.key_iterator(d):
            image = convert_to_tensor(d[key], track_meta=isinstance(d[key], MetaTensor)).to(torch.float32)
            if image.shape[0] != len(self.channels):
                raise ValueError(
                    f"the image has {image.shape[0]} channels, the model was trained on {len(self.channels)}"
                )
            values = np.array(image.detach().cpu(), dtype=np.float32)
            mask = None
            if any(channel.get("masked") for channel in self.channels):
                mask = ndimage.binary_fill_holes((values != 0).any(0))
            for index, channel in enumerate(self.channels):
                values[index] = _normalised(values[index], channel, mask)
            image.copy_(torch.from_numpy(values))
            d[key] = image
        return d


def _normalised(values: np.ndarray, channel: Mapping[str, Any], mask: np.ndarray | None) -> np.ndarray:
    scheme = channel["scheme"]
    if scheme == "CTNormalization":
        clipped = np.clip(values, channel["low"], channel["high"])
        return (clipped - channel["mean"]) / max(channel["std"], 1e-8)
    if scheme == "ZScoreNormalization":
        inside = mask if channel.get("masked") and mask is not None else np.ones(values.shape, dtype=bool)
        if not inside.any():
            return values
        result = values.copy()
        result[inside] = (values[inside] - values[inside].mean()) / max(values[inside].std(), 1e-8)
        return result
    if scheme == "RescaleTo01Normalization":
        shifted = values - values.min()
        return shifted / max(shifted.max(), 1e-8)
    if scheme == "RGBTo01Normalization":
        if values.min() < 0 or values.max() > 255:
            raise ValueError("the model was trained on colours from 0 to 255, and the image has other values")
        return values / 255
    if scheme == "NoNormalization":
        return values
    raise ValueError(f"no normalization {scheme!r}")


class ResizeToSpacingd(MapTransform, InvertibleTransform):
    """Resample images to a spacing as nnU-Net does: by the ratio of the voxel counts, splines of order 3, clipped.

    Where slices are thick (a spacing more than three times another, before or after), in the plane by splines and
    across the slices by the nearest voxel. The inverse brings predictions back to the image's own grid, with the orders
    of ``inverse``.

    Args:
        keys: images or label maps, C x spatial.
        spacing: mm per axis; ``None`` for an axis that stays (across the slices of a 2D network).
        order: of the spline. order_z: of the spline across thick slices.
        inverse: (order, order_z) on the way back.
        labels: for each key, whether it is a label map: each class is resampled by itself, linearly.
        separate: whether slices are treated apart: ``None``, by their thickness.
        allow_missing_keys: as in MONAI.

    >>> from monai.data import MetaTensor
    >>> image = MetaTensor(torch.rand(1, 10, 10, 8), affine=torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0])))
    >>> ResizeToSpacingd("image", [2.0, 2.0, 2.0])({"image": image})["image"].shape  # half as many in the plane
    torch.Size([1, 5, 5, 8])
    """

    def __init__(
        self,
        keys: KeysCollection,
        spacing: Sequence[float | None],
        order: int = 3,
        order_z: int = 0,
        inverse: Sequence[int] = (1, 0),
        labels: bool | Sequence[bool] = False,
        separate: bool | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing, self.order, self.order_z = list(spacing), order, order_z
        self.back, self.separate = tuple(inverse), separate
        self.labels = [labels] * len(self.keys) if isinstance(labels, bool) else list(labels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resampled, with the affine of the new grid."""
        d = dict(data)
        for key, is_label in zip(self.keys, self.labels, strict=True):
            if key not in d:
                if self.allow_missing_keys:
                    continue
                raise KeyError(f"no {key!r} to resample")
            d[key] = self._resized(convert_to_tensor(d[key], track_meta=True), is_label)
        return d

    def _resized(self, image: MetaTensor, is_label: bool) -> MetaTensor:
        dims = image.ndim - 1
        affine = image.affine.double()
        old = [float(mm) for mm in affine_to_spacing(affine, dims)]
        new = [mm if wanted is None else float(wanted) for mm, wanted in zip(old, self.spacing, strict=True)]
        before = list(image.shape[1:])
        after = [round(a / b * n) for a, b, n in zip(old, new, before, strict=True)]
        axis = thick_axis(old, new, self.separate)
        values = np.asarray(image.detach().cpu())
        if is_label:
            resized = resize_labels(values, after, axis)
        else:
            resized = resize_image(values, after, self.order, self.order_z, axis)
        result = MetaTensor(torch.from_numpy(resized), meta=dict(image.meta))
        result.applied_operations = list(image.applied_operations)
        result.affine = _scaled(affine, before, after)
        info = {"before": before, "old": old, "new": new, "affine": affine.tolist(), "label": is_label}
        self.push_transform(result, extra_info=info)
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Back on the image's own grid."""
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key]
            info = self.pop_transform(image)["extra_info"]
            before = [int(n) for n in info["before"]]
            old, new = ([float(mm) for mm in info[name]] for name in ("old", "new"))
            axis = thick_axis(new, old, self.separate)
            values = np.asarray(image.detach().cpu())
            if info["label"]:
                resized = resize_labels(values, before, axis)
            else:
                resized = resize_image(values, before, self.back[0], self.back[1], axis)
            result = MetaTensor(torch.from_numpy(resized).to(image.device), meta=dict(image.meta))
            result.applied_operations = list(image.applied_operations)
            result.affine = torch.as_tensor(info["affine"], dtype=torch.float64)
            d[key] = result
        return d


def _scaled(affine: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """The affine of a grid that covers the same extent with other voxels."""
    ratio = [a / b for a, b in zip(before, after, strict=True)]
    change = torch.eye(len(affine), dtype=torch.float64)
    for axis, scale in enumerate(ratio):
        change[axis, axis] = scale
        change[axis, -1] = (scale - 1) / 2
    return affine @ change


def thick_axis(old: Sequence[float], new: Sequence[float], separate: bool | None = None) -> int | None:
    """The axis across thick slices, which is resampled apart: the one whose spacing is more than three times another.

    Args:
        old, new: spacing, mm per axis, before and after; the one before decides first.
        separate: ``True``: the largest of ``old`` whatever its ratio; ``False``: none.

    >>> thick_axis([0.8, 0.8, 5.0], [1.0, 1.0, 1.0]), thick_axis([1.0, 1.0, 2.0], [1.0, 1.0, 1.0])
    (2, None)
    """
    if separate is False:
        return None
    for spacing in (old,) if separate else (old, new):
        if separate or max(spacing) / min(spacing) > 3:
            largest = [axis for axis, mm in enumerate(spacing) if mm == max(spacing)]
            return largest[0] if len(largest) == 1 else None
    return None


def resize_image(
    values: np.ndarray, shape: Sequence[int], order: int, order_z: int = 0, axis: int | None = None
) -> np.ndarray:
    """C x spatial values on another grid over the same extent, clipped to what was there.

    Args:
        values: C x spatial.
        shape: voxels per axis of the new grid.
        order: of the spline; order_z: of that along ``axis``, if one is treated apart.
        axis: a spatial axis, or ``None``.
    """
    if list(values.shape[1:]) == list(shape):
        return values
    channels = []
    for channel in values.astype(np.float64):
        if axis is None:
            channels.append(_zoomed(channel, shape, order))
            continue
        flat = [n for a, n in enumerate(shape) if a != axis]
        slices = [_zoomed(one, flat, order) for one in np.moveaxis(channel, axis, 0)]
        stack = np.moveaxis(np.stack(slices), 0, axis)
        if stack.shape[axis] != shape[axis]:
            places = (np.arange(shape[axis]) + 0.5) * (stack.shape[axis] / shape[axis]) - 0.5
            if order_z == 0:
                nearest = np.floor(places + 0.5).astype(int).clip(0, stack.shape[axis] - 1)
                stack = np.take(stack, nearest, axis)
            else:
                grid = [np.arange(n, dtype=np.float64) for n in shape]
                grid[axis] = places
                stack = ndimage.map_coordinates(
                    stack, np.stack(np.meshgrid(*grid, indexing="ij")), order=order_z, mode="nearest"
                )
        channels.append(stack)
    return np.stack(channels).astype(values.dtype if values.dtype.kind == "f" else np.float32)


def resize_labels(values: np.ndarray, shape: Sequence[int], axis: int | None = None) -> np.ndarray:
    """A label map, C x spatial, on another grid: where a class, interpolated linearly, reaches a half."""
    if list(values.shape[1:]) == list(shape):
        return values
    result = np.zeros((values.shape[0], *shape), dtype=values.dtype)
    for label in np.unique(values):
        share = resize_image((values == label).astype(np.float64), shape, 1, 0, axis)
        result[share >= 0.5] = label
    return result


def _zoomed(values: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    if list(values.shape) == list(shape):
        return values
    zoom = [1 / (a / b) for a, b in zip(values.shape, shape, strict=True)]
    result = ndimage.zoom(values, zoom, order=order, mode="nearest", grid_mode=True)
    return np.clip(result, values.min(), values.max()) if order > 1 else result


class EvenTilesInferer(Inferer):
    """nnU-Net's sliding window: tiles at even distances, at most ``step`` of a tile apart, weighted by a Gaussian.

    MONAI's ``SlidingWindowInferer`` keeps the distance and shifts the last tile; results differ in the third decimal.

    Args:
        roi_size: voxels per axis of a tile, as many as the network has spatial axes.
        step: largest distance of neighbouring tiles, as a share of the tile.
        sw_batch_size: tiles that go through the network together.
        mirror_axes: axes of a tile along which it is mirrored too; the outputs of all 2^n views are averaged.
        slice_axis: of 3D images that a 2D network reads slice by slice, the axis across the slices.

    >>> seen = []
    >>> def network(tiles):
    ...     seen.append(len(tiles))
    ...     return tiles
    >>> out = EvenTilesInferer([4, 4])(torch.ones(1, 1, 8, 4), network)  # tiles at 0, 2 and 4
    >>> sum(seen), round(float(out.min()), 3)
    (3, 1.0)
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        step: float = 0.5,
        sw_batch_size: int = 4,
        mirror_axes: Sequence[int] = (),
        slice_axis: int | None = None,
    ) -> None:
        super().__init__()
        self.roi_size, self.step, self.sw_batch_size = list(roi_size), step, sw_batch_size
        self.mirror_axes, self.slice_axis = list(mirror_axes), slice_axis

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """The network's outputs, B x classes x spatial, for B x C x spatial."""
        results = []
        for image in inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs:
            if self.slice_axis is not None and image.ndim - 1 > len(self.roi_size):
                slices = image.movedim(1 + self.slice_axis, 0)
                results.append(self._tiled(slices, network, *args, **kwargs).movedim(0, 1 + self.slice_axis))
            else:
                results.append(self._tiled(image[None], network, *args, **kwargs)[0])
        output = torch.stack(results)
        return MetaTensor(output, meta=inputs.meta) if isinstance(inputs, MetaTensor) else output

    def _tiled(self, images: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """N x C x spatial, all tiled alike."""
        more = [max(0, roi - n) for roi, n in zip(self.roi_size, images.shape[2:], strict=True)]
        low = [n // 2 for n in more]
        padding = [side for n, below in zip(reversed(more), reversed(low), strict=True) for side in (below, n - below)]
        padded = F.pad(images, padding) if any(more) else images
        starts = [self._starts(n, roi) for n, roi in zip(padded.shape[2:], self.roi_size, strict=True)]
        tiles = [
            (index, tuple(slice(s, s + roi) for s, roi in zip(corner, self.roi_size, strict=True)))
            for index in range(len(padded))
            for corner in itertools.product(*starts)
        ]
        weight = _importance(self.roi_size).to(images.device)
        total: Tensor | None = None
        counts = torch.zeros(padded.shape[2:], device=images.device)
        for first in range(0, len(tiles), self.sw_batch_size):
            chosen = tiles[first : first + self.sw_batch_size]
            batch = torch.stack([padded[index][(slice(None), *place)] for index, place in chosen])
            outputs = self._views(batch, network, *args, **kwargs).float() * weight
            if total is None:
                total = torch.zeros(len(padded), outputs.shape[1], *padded.shape[2:], device=outputs.device)
            for (index, place), output in zip(chosen, outputs, strict=True):
                total[index][(slice(None), *place)] += output
                if index == 0:
                    counts[place] += weight
        assert total is not None
        own = tuple(slice(a, a + n) for a, n in zip(low, images.shape[2:], strict=True))
        return (total / counts)[(slice(None), slice(None), *own)]

    def _views(self, batch: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        output = network(batch, *args, **kwargs)
        axes = [2 + axis for axis in self.mirror_axes]
        views = [c for n in range(len(axes)) for c in itertools.combinations(axes, n + 1)]
        for view in views:
            output = output + torch.flip(network(torch.flip(batch, view), *args, **kwargs), view)
        return output / (1 + len(views))

    def _starts(self, size: int, roi: int) -> list[int]:
        steps = math.ceil((size - roi) / (roi * self.step)) + 1
        distance = (size - roi) / (steps - 1) if steps > 1 else 0.0
        return [round(distance * place) for place in range(steps)]


def _importance(roi: Sequence[int]) -> Tensor:
    """A Gaussian of an eighth of the tile, in nnU-Net's half precision, nowhere zero."""
    weight = np.ones(1)
    for size in roi:
        line = np.zeros(size)
        line[size // 2] = 1
        line = ndimage.gaussian_filter(line, size / 8, mode="constant")
        weight = weight[..., None] * line
    weight = weight[0] * (10 / weight.max())
    half = torch.from_numpy(weight).half()
    half[half == 0] = half[half > 0].min()
    return half.float()


class FoldMean(nn.Module):
    """Several networks as one: the mean of their outputs before softmax, as nnU-Net joins its folds.

    How many there are, the weights say: a state with names ``networks.0. ... networks.1. ...`` makes it so many, one of
    a single network makes it that network.

    Args:
        networks: one, or several of one shape.

    >>> mean = FoldMean(nn.Linear(1, 1, bias=False))
    >>> _ = mean.load_state_dict({"networks.0.weight": torch.ones(1, 1), "networks.1.weight": torch.zeros(1, 1)})
    >>> mean(torch.ones(1, 1)).item()
    0.5
    >>> _ = mean.load_state_dict({"weight": torch.ones(1, 1)})  # fine-tuned: one network
    >>> mean(torch.ones(1, 1)).item()
    1.0
    """

    def __init__(self, networks: nn.Module | Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList([networks] if isinstance(networks, nn.Module) else networks)

    def resize(self, count: int) -> FoldMean:
        """As many networks as weights are to come for; those that are added are copies of the first."""
        first = self.networks[0]
        others = list(self.networks[1:count])
        others += [copy.deepcopy(first) for _ in range(count - 1 - len(others))]
        self.networks = nn.ModuleList([first, *others])
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Of as many networks as the state holds."""
        count = folds_in(state_dict)
        self.resize(max(count, 1))
        state = state_dict if count else {f"networks.0.{name}": value for name, value in state_dict.items()}
        return super().load_state_dict(state, strict, assign)

    def forward(self, image: Tensor) -> Tensor:
        """B x classes x spatial."""
        return torch.stack([network(image) for network in self.networks]).mean(0)


def folds_in(state_dict: Mapping[str, Any]) -> int:
    """How many networks a ``FoldMean`` saved; 0 where it is the state of a single one.

    >>> folds_in({"networks.0.weight": 1, "networks.1.weight": 2}), folds_in({"weight": 1})
    (2, 0)
    """
    parts = [str(name).split(".", 2) for name in state_dict]
    if not parts or any(len(part) < 3 or part[0] != "networks" or not part[1].isdigit() for part in parts):
        return 0
    return 1 + max(int(part[1]) for part in parts)


def bundle_weights(root: str) -> str:
    """The file that a bundle predicts with where no other is named: all folds of its source, if they are there.

    Args:
        root: the bundle's folder.
    """
    folds = Path(root) / "models" / "folds.pt"
    return str(folds if folds.is_file() else folds.with_name("model.pt"))


class RegionsToLabelsd(MapTransform):
    """A label map from one output per region: later regions stand over earlier ones, as nnU-Net writes them.

    Args:
        keys: outputs, regions x spatial.
        labels: the value that each region is written as, in the order of the outputs.
        threshold: of the output before its sigmoid, above which a voxel belongs to the region.
        allow_missing_keys: as in MONAI.

    >>> whole, core = torch.tensor([[5.0, 5.0, -5.0]]), torch.tensor([[-5.0, 5.0, -5.0]])
    >>> RegionsToLabelsd("pred", [2, 1])({"pred": torch.stack([whole, core])})["pred"].tolist()  # the core on top
    [[[2.0, 1.0, 0.0]]]
    """

    def __init__(
        self, keys: KeysCollection, labels: Sequence[int], threshold: float = 0.0, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.labels, self.threshold = list(labels), threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """1 x spatial."""
        d = dict(data)
        for key in self.key_iterator(d):
            scores = convert_to_tensor(d[key], track_meta=isinstance(d[key], MetaTensor))
            label = torch.zeros_like(scores[:1])
            for score, value in zip(scores, self.labels, strict=True):
                label[0][score > self.threshold] = value
            d[key] = label
        return d
