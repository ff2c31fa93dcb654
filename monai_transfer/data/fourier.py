"""Fourier domain adaptation: source images get the target's low frequencies' amplitude, and keep their own phase.

    x' = F^-1( M |F(x_t)| + (1 - M) |F(x_s)|,  arg F(x_s) ),   M: the centred window of 2 b_i + 1 frequencies on axis i
    b_i = floor(L * n_i)   per axis, or  b = floor(L * min n)  for all axes

Paper: Yang and Soatto, FDA: Fourier Domain Adaptation for Semantic Segmentation, CVPR 2020, arXiv:2004.05498

The paper's square window (``per_axis=False``) suits square images; a volume of 256 x 256 x 20 voxels needs a window in
proportion to each axis, the default. L of 0.01, 0.05 and 0.09 are the paper's. Use it **before** intensity
normalisation, on images in their scanner's own units and with target images in the same orientation and spacing.
Labels stay valid, as geometry lives in the phase; a hard window rings a little. Take target images from the training
split only.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import LoadImage, MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type
from torch import Tensor
from torch.nn import functional as F

from monai_transfer.errors import InputError

__all__ = ["FourierDomainAdaptd", "swap_low_frequencies", "window"]


def window(shape: Sequence[int], share: float, per_axis: bool = True) -> list[int]:
    """b of each axis for a share L of the spatial ``shape``.

    Args:
        shape: voxels per axis.
        share: L, of an axis' length.
        per_axis: by each axis' own length; else by the shortest.

    A volume of thick slices has few frequencies across them:

    >>> window((200, 200, 20), 0.05), window((200, 200, 20), 0.05, per_axis=False)
    ([10, 10, 1], [1, 1, 1])
    """
    sizes = list(shape) if per_axis else [min(shape)] * len(shape)
    return [min(int(share * n), (m - 1) // 2) for n, m in zip(sizes, shape, strict=True)]


def swap_low_frequencies(source: Tensor, target: Tensor, share: float, per_axis: bool = True) -> Tensor:
    """``source`` (C x spatial) with the low-frequency amplitude of ``target``; float32 or wider, same shape.

    A target of another spatial size is resampled linearly to the source's. A target of one channel serves all.

    Args:
        source: C x spatial, whose edges stay.
        target: C x spatial or 1 x spatial, whose low frequencies come over.
        share: L, of an axis' length, 0 to 0.5.
        per_axis: the window by each axis' own length; else by the shortest.

    Raises:
        InputError: numbers of spatial axes or channels do not match, ``share`` is not in [0, 0.5], or an image holds
            values that are not finite, which would spread over the whole.

    The target's brightness comes over, the source's edges stay:

    >>> import torch
    >>> from monai_transfer.data.fourier import swap_low_frequencies
    >>> source, target = torch.rand(1, 32, 32), torch.rand(1, 32, 32) + 3
    >>> out = swap_low_frequencies(source, target, share=0.01)
    >>> torch.allclose(out.mean(), target.mean()), torch.allclose(out - out.mean(), source - source.mean(), atol=0.2)
    (True, True)
    """
    if source.ndim != target.ndim or target.shape[0] not in (1, source.shape[0]):
        raise InputError(
            f"target of shape {tuple(target.shape)} does not fit source of {tuple(source.shape)}",
            hint="give images of the same number of axes, and a target of one channel or of the source's",
        )
    if not 0 <= share <= 0.5:
        raise InputError(f"the share of frequencies must lie in [0, 0.5], not {share}", hint="such as 0.05")
    source = source.float() if source.dtype != torch.float64 else source
    target, spatial = target.to(source), source.shape[1:]
    if target.shape[1:] != spatial:
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(spatial)]
        target = F.interpolate(target[None], size=spatial, mode=mode, align_corners=False)[0]
    for image, which in ((source, "source"), (target, "target")):
        if not torch.isfinite(image).all():
            raise InputError(f"a {which} image holds values that are not finite", hint="run monai-transfer check")
    axes = tuple(range(1, source.ndim))
    own, other = torch.fft.fftn(source, dim=axes), torch.fft.fftn(target, dim=axes).abs()
    low = torch.ones((), dtype=torch.bool, device=source.device)
    for axis, (n, b) in enumerate(zip(spatial, window(spatial, share, per_axis), strict=True)):
        frequency = torch.fft.fftfreq(n, 1.0 / n, device=source.device).abs()
        low = low & (frequency <= b).view([-1 if a == axis else 1 for a in range(len(spatial))])
    amplitude = torch.where(low, other, own.abs())
    return torch.fft.ifftn(torch.polar(amplitude, own.angle()), dim=axes).real


class FourierDomainAdaptd(RandomizableTransform, MapTransform):
    """Random Fourier domain adaptation towards one of the target images.

    Args:
        keys: image keys; all of a case's keys get the same target case.
        targets: target cases: image paths, arrays or tensors (C x spatial), or data list items (dictionaries).
        share: L, or a range from which it is drawn.
        prob: probability of applying it.
        per_axis: window in proportion to each axis.
        load: reads one target into a C x spatial array, e.g. a ``Compose`` with orientation and spacing; default:
            ``LoadImage`` with the channel first, of a dictionary's ``image``.
        cache: how many loaded targets are kept in memory.

    Raises:
        InputError: no target is given, or ``share`` is no share.

    >>> import torch
    >>> from monai_transfer.data.fourier import FourierDomainAdaptd
    >>> _ = torch.manual_seed(0)
    >>> source, target = torch.rand(1, 32, 32), torch.rand(1, 32, 32) + 3
    >>> transform = FourierDomainAdaptd("image", targets=[target], prob=1.0)
    >>> out = transform({"image": source})["image"]
    >>> bool(abs(out.mean() - target.mean()) < 0.01)  # the target's brightness, the source's edges
    True
    """

    def __init__(
        self,
        keys: KeysCollection,
        targets: Sequence[Any],
        share: float | tuple[float, float] = (0.01, 0.09),
        prob: float = 0.5,
        per_axis: bool = True,
        load: Callable[[Any], Any] | None = None,
        cache: int = 32,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.targets = list(targets)
        if not self.targets:
            raise InputError(
                "Fourier domain adaptation needs target images", hint="give the target site's training cases"
            )
        self.share = (share, share) if isinstance(share, (int, float)) else tuple(share)
        if len(self.share) != 2 or not 0 <= self.share[0] <= self.share[1] <= 0.5:
            raise InputError(
                f"the share of frequencies is one number or a range in [0, 0.5], not {share}",
                hint="such as 0.05 or (0.01, 0.09)",
            )
        self.per_axis, self.load, self.cache = per_axis, load, cache
        self._loaded: dict[int, Tensor] = {}
        self._chosen, self._drawn = 0, 0.0

    def randomize(self, data: Any = None) -> None:
        super().randomize(None)
        self._chosen = int(self.R.randint(len(self.targets)))
        self._drawn = float(self.R.uniform(*self.share))

    def _target(self, index: int) -> Tensor:
        if index not in self._loaded:
            item = self.targets[index]
            if self.load is not None:
                item = self.load(item)
            if isinstance(item, Mapping):
                item = item["image"]
            if not hasattr(item, "ndim"):
                item = LoadImage(image_only=True, ensure_channel_first=True)(item)
            if len(self._loaded) >= max(self.cache, 1):
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[index] = torch.as_tensor(item.as_tensor() if hasattr(item, "as_tensor") else item)
        return self._loaded[index]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        self.randomize()
        if not self._do_transform:
            return result
        for key in self.key_iterator(result):
            image = torch.as_tensor(result[key])
            plain = image.as_tensor() if hasattr(image, "as_tensor") else image
            swapped = swap_low_frequencies(plain, self._target(self._chosen), self._drawn, self.per_axis)
            result[key] = convert_to_dst_type(swapped, result[key], dtype=swapped.dtype)[0]
        return result
