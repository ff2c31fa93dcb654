"""A flip from left to right in which the classes of the two sides change places.

For structures that are each other's mirror image (two kidneys, two hemispheres); of one that is not (the left atrium)
there is no mirror image to learn from, and the flip is left out instead: ``mirror_axes``.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Flip, MapTransform, RandomizableTransform
from monai.transforms.utils import ensure_tuple
from monai.utils import convert_to_dst_type

from monai_transfer.errors import InputError
from monai_transfer.manifest.laterality import mirror_pairs, swapped

__all__ = ["RandSideFlipd"]


class RandSideFlipd(RandomizableTransform, MapTransform):
    """Flip images and labels from left to right, and let the classes of the two sides change places.

    So do the flags under ``annotated`` (``EncodeLabelsd``), where an item has them.

    Args:
        keys: what is flipped, (C, spatial) each.
        label_keys: those of ``keys`` that are labels: class numbers (1, spatial), or a channel for each class.
        classes: the class names in the order of the class numbers, or of the channels (``LabelMapping.outputs``).
        prob: of flipping.
        spatial_axis: the patient's left and right: 0 in RAS.
        allow_missing_keys: leave an item without a key alone.

    Raises:
        InputError: a class with a side has no partner.

    Example:
        >>> item = {"label": torch.tensor([[[1, 0, 0]]])}
        >>> flip = RandSideFlipd("label", ["label"], ["background", "left", "right"], prob=1, spatial_axis=1)
        >>> flip(item)["label"].tolist()
        [[[0, 0, 2]]]
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_keys: KeysCollection,
        classes: Sequence[str],
        prob: float = 0.5,
        spatial_axis: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.label_keys, self.classes = ensure_tuple(label_keys), list(classes)
        self.pairs = mirror_pairs(self.classes)
        self.flip = Flip(spatial_axis)
        unknown = [key for key in self.label_keys if key not in self.keys]
        if unknown:
            raise InputError(f"the label {unknown[0]!r} is not among the keys", hint="name it in keys, too")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item, flipped or not."""
        item = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return item
        told = item.get("annotated")  # of each class, whether it was looked for
        if isinstance(told, torch.Tensor) and len(told) == len(self.classes):
            item["annotated"] = told[swapped(range(len(self.classes)), self.pairs)]
        for key in self.key_iterator(item):
            flipped = self.flip(item[key])
            item[key] = self._exchange(flipped) if key in self.label_keys else flipped
        return item

    def _exchange(self, label: Any) -> Any:
        order = swapped(range(len(self.classes)), self.pairs)
        if len(label) == len(self.classes):
            return convert_to_dst_type(label[order], label)[0]
        values = torch.as_tensor(label)
        table = torch.tensor([*order, -1], device=values.device)  # the last entry is that of -1, an ignored voxel
        return convert_to_dst_type(table[values.long()].to(values.dtype), label)[0]
