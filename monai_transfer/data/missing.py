"""Channels that some cases lack: zeros, a flag that says so, and random dropout so that a network learns to do without.

A manifest declares them by number (``missing: [1]``), and another file of the case stands in that place. In a
pipeline: ``ZeroMissingd`` behind the normalisation (0 is then an image's mean), ``RandChannelDropoutd`` in training,
and, where the network shall be told, ``PresenceChannelsd`` last, which needs twice the input channels.

Paper: Neverova et al., ModDrop: Adaptive Multi-Modal Gesture Recognition, IEEE TPAMI 2016 (dropout of whole channels)
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type

from monai_transfer.errors import InputError

__all__ = ["PresenceChannelsd", "RandChannelDropoutd", "ZeroMissingd", "refuse_missing"]

PRESENT = "present"
"""The key under which a bool tensor (C,) says which channels an item has."""


class ZeroMissingd(MapTransform):
    """Zeros in the channels that an item lacks, and which it has as a bool tensor (C,) under ``present``.

    Args:
        keys: images (C, spatial).
        missing_key: where the numbers of the missing channels stand, as :meth:`Manifest.datalist` gives them; an item
            without it has all.
        allow_missing_keys: leave an item without the key alone.

    Raises:
        InputError: a number is no channel.

    Example:
        >>> item = ZeroMissingd("image")({"image": torch.ones(2, 1, 2), "missing": [1]})
        >>> item["image"].tolist(), item["present"].tolist()
        ([[[1.0, 1.0]], [[0.0, 0.0]]], [True, False])
    """

    def __init__(self, keys: KeysCollection, missing_key: str = "missing", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.missing_key = missing_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with its missing channels zeroed."""
        item = dict(data)
        # collating lists of different lengths fails, and `present` says the same
        missing = [int(number) for number in item.pop(self.missing_key, None) or ()]
        for key in self.key_iterator(item):
            channels = len(item[key])
            if missing and max(missing) >= channels:
                fault = f"channel {max(missing)} is declared missing, and the image has {channels}"
                raise InputError(fault, hint="correct `missing` in the manifest")
            present = torch.ones(channels, dtype=torch.bool)
            present[missing] = False
            item[PRESENT] = present
            item[key] = _zeroed(item[key], present)
        return item


class RandChannelDropoutd(RandomizableTransform, MapTransform):
    """Leave out each channel that an item has with a probability, never the last one; ``present`` is updated.

    Args:
        keys: images (C, spatial), behind ``ZeroMissingd`` where channels may be missing already.
        prob: of leaving out, for each channel.
        allow_missing_keys: leave an item without the key alone.

    Raises:
        InputError: ``prob`` is not in [0, 1).

    Example:
        >>> drop = RandChannelDropoutd("image", prob=0.5).set_random_state(1)
        >>> item = drop({"image": torch.ones(4, 1)})
        >>> item["image"].flatten().tolist(), item["present"].tolist()
        ([0.0, 1.0, 0.0, 0.0], [False, True, False, False])
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.25, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, 1.0)
        if not 0 <= prob < 1:
            raise InputError(f"the probability of dropout is {prob}", hint="give one from 0 to below 1")
        self.dropout = float(prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with some channels zeroed."""
        item = dict(data)
        for key in self.key_iterator(item):
            channels = len(item[key])
            given = item.get(PRESENT)
            present = torch.ones(channels, dtype=torch.bool) if given is None else given.clone()
            draws = torch.from_numpy(self.R.random(channels))
            kept = present & (draws >= self.dropout)
            if not kept.any():  # the one that was nearest to staying
                kept[torch.where(present, draws, -1.0).argmax()] = True
            item[PRESENT] = kept
            item[key] = _zeroed(item[key], kept)
        return item


class PresenceChannelsd(MapTransform):
    """One more channel for each channel of an image: 1 everywhere where the item has it, 0 where it is missing.

    Args:
        keys: images (C, spatial); they become (2 C, spatial).
        allow_missing_keys: leave an item without the key alone.

    Example:
        >>> item = {"image": torch.zeros(2, 1), "present": torch.tensor([True, False])}
        >>> PresenceChannelsd("image")(item)["image"].tolist()
        [[0.0], [0.0], [1.0], [0.0]]
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with its images extended."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            present = item.get(PRESENT)
            flags = torch.ones(len(image)) if present is None else torch.as_tensor(present).float()
            shape = (len(image), *([1] * (image.ndim - 1)))
            planes = flags.reshape(shape).expand(image.shape).to(torch.as_tensor(image).dtype)
            item[key] = convert_to_dst_type(torch.cat([torch.as_tensor(image), planes.to(image.device)]), image)[0]
        return item


def refuse_missing(items: Iterable[Mapping[Hashable, Any]], trained_without: bool) -> None:
    """Hold that a network which always saw every channel is not given items that lack one.

    Args:
        items: of a data list, with ``missing`` where a channel is.
        trained_without: the network was trained with missing channels or dropout of channels.

    Raises:
        InputError: an item lacks a channel, naming the case.

    >>> items = [{"case": "c1", "missing": [2]}]
    >>> refuse_missing(items, trained_without=True)
    >>> try:
    ...     refuse_missing(items, trained_without=False)
    ... except InputError as error:
    ...     print(error.fault)
    case 'c1' lacks channel 2, and the model never did without one
    """
    for item in items:
        missing = list(item.get("missing") or ())
        if missing and not trained_without:
            numbers = ", ".join(map(str, missing))
            hint = "leave the case out, or train with dropout of channels (data.missing.RandChannelDropoutd)"
            fault = f"case {item.get('case', '')!r} lacks channel {numbers}, and the model never did without one"
            raise InputError(fault, hint=hint)


def _zeroed(image: Any, present: torch.Tensor) -> Any:
    mask = present.reshape(-1, *([1] * (image.ndim - 1)))
    # where, not a product: a stand-in may hold anything
    values = torch.where(mask.to(image.device), image, torch.zeros((), dtype=image.dtype, device=image.device))
    return convert_to_dst_type(values, image)[0]
