"""Two augmented views of one scan, for contrastive pretraining."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Compose, MapTransform, RandomizableTransform

__all__ = ["TwoViewsd"]


class TwoViewsd(MapTransform, RandomizableTransform):
    """Replaces an image by two views of it, each augmented on its own: C x spatial becomes 2 x C x spatial.

    Args:
        keys: the image key.
        transforms: random dictionary transforms of that key, which end in one shape, such as a crop of fixed size.
        seed: draw the same views in every call, for validation; ``None`` draws anew.
        allow_missing_keys: skip a missing image.

    Raises:
        ValueError: there is more than one key, or the views differ in shape.

    >>> import torch
    >>> from monai.transforms import RandFlipd
    >>> from monai_transfer.pretraining.views import TwoViewsd
    >>> flip = RandFlipd(keys="image", prob=0.5)
    >>> tuple(TwoViewsd(keys="image", transforms=[flip], seed=0)({"image": torch.rand(1, 8, 8)})["image"].shape)
    (2, 1, 8, 8)
    """

    def __init__(
        self,
        keys: KeysCollection,
        transforms: Sequence[Callable] | Callable,
        seed: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)
        if len(self.keys) != 1:
            raise ValueError(f"TwoViewsd takes one image key, not {self.keys}")
        self.augment = transforms if isinstance(transforms, Compose) else Compose(transforms)
        self.seed = seed

    def set_random_state(self, seed: int | None = None, state: Any = None) -> TwoViewsd:
        """Seed the views' transforms."""
        super().set_random_state(seed, state)
        self.augment.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """``data`` with both views under the key."""
        result = dict(data)
        for key in self.key_iterator(result):
            if self.seed is not None:
                self.augment.set_random_state(self.seed)
            # a copy each: some transforms write into their input
            views = [self.augment({key: result[key].clone()})[key] for _ in range(2)]
            if views[0].shape != views[1].shape:
                raise ValueError(f"views of {tuple(views[0].shape)} and {tuple(views[1].shape)}: crop them to one size")
            result[key] = torch.stack([getattr(view, "as_tensor", lambda x=view: x)() for view in views])
        return result
