"""What random transforms of intensities share: drawn on the CPU, applied where the image is, metadata kept.

A transform has two faces, as in MONAI: one of arrays, one of dictionaries that draws once for all its keys. Draws come
from the transform's own ``R``, so ``set_random_state`` (of a ``Compose`` or a dataset, too) repeats them on any device.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.config import KeysCollection
from monai.data.meta_obj import get_track_meta
from monai.transforms import Compose, MapTransform, RandomizableTransform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor
from torch import Tensor

from monai_transfer.component_table import share_table
from monai_transfer.errors import InputError

__all__ = ["RandIntensity", "as_image", "RandIntensityd", "between", "composed", "range_of", "restore_statistics"]


class RandIntensity(RandomizableTransform):
    """Base of a random transform that changes intensities alone; geometry and labels stay valid.

    A subclass draws its numbers in ``draw(image)`` and uses them in ``apply(image)``: C x spatial in and out, float32
    (float64 stays), without metadata. Integer images come back as float32.

    Args:
        prob: probability that a case is changed.

    Raises:
        InputError: ``prob`` is not a probability.

    A transform of one's own, which shifts all intensities by one random number:

    >>> class Shift(RandIntensity):
    ...     def draw(self, image):
    ...         self.by = self.R.uniform(1, 2)
    ...     def apply(self, image):
    ...         return image + self.by
    >>> changed = Shift(prob=1.0).set_random_state(0)(torch.zeros(1, 4, 4))
    >>> 1 <= float(changed.min()) == float(changed.max()) <= 2
    True
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, prob: float) -> None:
        if not 0 <= prob <= 1:
            raise InputError(f"a probability lies between 0 and 1, not at {prob}", hint="such as prob=0.3")
        super().__init__(prob)

    def draw(self, image: Tensor) -> None:
        """Draw what ``apply`` needs, from ``self.R`` alone."""
        raise NotImplementedError

    def apply(self, image: Tensor) -> Tensor:
        """The changed image, by what was drawn last."""
        raise NotImplementedError

    def randomize(self, data: Any) -> None:
        """Decide whether to act, and draw."""
        super().randomize(None)
        if self._do_transform:
            self.draw(data)

    def __call__(self, img: Any, randomize: bool = True) -> Tensor:
        image = as_image(img)
        if randomize:
            self.randomize(image)
        if not self._do_transform:
            return image
        plain = image.as_tensor() if hasattr(image, "as_tensor") else image
        changed = self.apply(plain if plain.dtype == torch.float64 else plain.float())
        return convert_to_dst_type(changed, image, dtype=changed.dtype)[0]


class RandIntensityd(RandomizableTransform, MapTransform):
    """The dictionary face of a ``RandIntensity``: one draw, made for the first key that is there, for all keys.

    Args:
        keys: image keys (C x spatial).
        array: the transform of arrays.
        allow_missing_keys: skip keys that a case lacks.

    >>> from monai_transfer.data.augmentation.gin import RandGIN
    >>> case = {"t1": torch.rand(1, 8, 8)}
    >>> case["t2"] = case["t1"].clone()
    >>> changed = RandIntensityd(["t1", "t2"], RandGIN()).set_random_state(0)(case)
    >>> bool((changed["t1"] == changed["t2"]).all()), bool((changed["t1"] == case["t1"]).all())  # one draw for both
    (True, False)
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, keys: KeysCollection, array: RandIntensity, allow_missing_keys: bool = False) -> None:
        RandomizableTransform.__init__(self, array.prob)
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.array = array

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandIntensityd:
        """Seed its own and its array transform's draws."""
        super().set_random_state(seed, state)
        self.array.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for place, key in enumerate(self.key_iterator(result)):
            result[key] = self.array(result[key], randomize=place == 0)
        return result


def as_image(img: Any) -> Tensor:
    """An image as a tensor; tensors stay what they are, so that a batch never mixes those with and without metadata.

    Args:
        img: C x spatial; a ``MetaTensor``, a tensor, or an array, which becomes a ``MetaTensor`` as MONAI does it.

    >>> plain = torch.zeros(1, 4)
    >>> as_image(plain) is plain, type(as_image(np.zeros((1, 4)))).__name__
    (True, 'MetaTensor')
    """
    return img if isinstance(img, Tensor) else convert_to_tensor(img, track_meta=get_track_meta())


def composed(transforms: Sequence[Any]) -> Compose:
    """Transforms, or their MONAI configs (dictionaries with ``_target_``), as one.

    Args:
        transforms: objects, dictionaries with ``_target_``, or both.

    >>> composed([{"_target_": "monai.transforms.ScaleIntensity"}])(np.array([[0.0, 5.0]])).tolist()
    [[0.0, 1.0]]
    """
    return Compose(
        [share_table(ConfigParser(dict(t))).get_parsed_content() if isinstance(t, Mapping) else t for t in transforms]
    )


def between(value: float | Sequence[float], what: str, *, low: float = -np.inf, high: float = np.inf) -> tuple:
    """A range as (least, most); a single number counts on both sides of 0.

    Args:
        value: the range, or a number a for (-a, a).
        what: the word for it in the error.
        low: nothing below this.
        high: nothing above.

    Raises:
        InputError: it is no range, or leaves [low, high].

    >>> between(0.1, "hue"), between([0.8, 1.2], "saturation", low=0)
    ((-0.1, 0.1), (0.8, 1.2))
    """
    pair = (-abs(value), abs(value)) if isinstance(value, (int, float)) else tuple(float(v) for v in value)
    if len(pair) != 2 or pair[0] > pair[1] or pair[0] < low or pair[1] > high:
        raise InputError(
            f"{what} is a range within [{low}, {high}], least first, not {value!r}", hint="such as [0.8, 1.2]"
        )
    return pair


def range_of(image: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest value of each channel, shaped C x 1 x 1 (x 1).

    Args:
        image: C x spatial.

    >>> low, high = range_of(torch.tensor([[[0.0, 5.0]], [[2.0, 3.0]]]))
    >>> low.flatten().tolist(), high.flatten().tolist()
    ([0.0, 2.0], [5.0, 3.0])
    """
    flat = image.flatten(1)
    shape = (-1, *[1] * (image.ndim - 1))
    return flat.amin(1).view(shape), flat.amax(1).view(shape)


def restore_statistics(changed: Tensor, image: Tensor) -> Tensor:
    """``changed`` with the mean and standard deviation that each channel of ``image`` has.

    Args:
        changed: C x spatial.
        image: of the same shape.

    >>> image = torch.tensor([[100.0, 200.0]])
    >>> restore_statistics(torch.tensor([[7.0, 3.0]]), image).tolist()  # the changed order in the old units
    [[200.0, 100.0]]
    """
    axes = tuple(range(1, image.ndim))
    spread = changed.std(axes, keepdim=True, correction=0).clamp_min(1e-8)
    changed = (changed - changed.mean(axes, keepdim=True)) / spread
    return changed * image.std(axes, keepdim=True, correction=0) + image.mean(axes, keepdim=True)
