"""Half of each batch plain, half changed: what keeps a randomised network's accuracy at home.

A coin for each case leaves a batch of four all plain, or all changed, once in eight. Here cases are taken in blocks,
and of each block the given share is changed, at random places. A batch holds whole blocks where its size is a multiple
of theirs, since each worker of a loader makes whole batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.transforms import Randomizable, Transform

from monai_transfer.data.augmentation.base import composed
from monai_transfer.errors import InputError

__all__ = ["Mixed"]


class Mixed(Randomizable, Transform):
    """Apply transforms to a fixed share of the cases.

    Args:
        transforms: what is applied, in order: transforms, or their MONAI configs (dictionaries with ``_target_``).
        share: of the cases that are changed.
        block: cases in a block; by default the smallest up to 8 of which the share is a whole number. Choose a divisor
            of the batch size.

    Raises:
        InputError: no such share.

    Example:
        >>> mixed = Mixed([lambda x: x + 1], share=0.5).set_random_state(0)
        >>> sum(mixed(0) for _ in range(4))
        2
    """

    def __init__(self, transforms: Sequence[Any], share: float = 0.5, block: int | None = None) -> None:
        if not 0 <= share <= 1:
            raise InputError(f"a share lies between 0 and 1, not at {share}", hint="such as 0.5")
        self.share, self.block = float(share), block or _block(share)
        self.transform = composed(transforms)
        self._waiting: list[bool] = []

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Mixed:
        """Seed its own and its transforms' draws; a new block begins."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        self._waiting = []
        return self

    def randomize(self, data: Any = None) -> bool:
        """Whether this case is changed."""
        if not self._waiting:
            changed = self.share * self.block
            count = int(changed) + bool(self.R.rand() < changed - int(changed))
            self._waiting = [bool(place < count) for place in self.R.permutation(self.block)]
        return self._waiting.pop()

    def __call__(self, data: Any) -> Any:
        return self.transform(data) if self.randomize() else data


def _block(share: float) -> int:
    return next((n for n in range(1, 9) if abs(n * share - round(n * share)) < 1e-6 and n > 1), 8)
