"""Augmentation of whole batches on the trainer's device, so that loading never waits for noise, blur or GIN.

Cutting and turning a patch belongs to the loader, where images still differ in size; what changes intensities alone
may run where the network runs. ``preset(..., parts="geometry")`` and ``preset(..., parts="intensity")`` are the halves.
A trainer takes this object as its ``prepare_batch``, and as a handler, which seeds it anew in each epoch:

    on_device = AugmentBatch(preset("standard", 3, spacing, patch, parts="intensity"))
    SupervisedTrainer(..., prepare_batch=on_device, train_handlers=[EpochSeed(0), on_device])

On a CPU it costs what the same transforms cost in the loader; with worker processes leave them there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import decollate_batch, list_data_collate
from monai.engines.utils import default_prepare_batch

from monai_transfer.data.augmentation.base import composed

__all__ = ["AugmentBatch"]


class AugmentBatch:
    """Moves a batch to the device, then augments each of its cases there, with draws of their own.

    Args:
        transforms: dictionary transforms, or their MONAI configs; they must keep sizes.
        keys: what is moved and augmented, where a batch has it; all else stays.
        prepare: what makes inputs and targets of the batch then; MONAI's own by default.

    >>> shift = {"_target_": "monai.transforms.RandShiftIntensityd", "keys": ["image"], "offsets": [1, 1], "prob": 1.0}
    >>> image, label = AugmentBatch([shift])({"image": torch.zeros(2, 1, 4, 4), "label": torch.zeros(2)}, "cpu")
    >>> image.unique().tolist()
    [1.0]
    """

    def __init__(
        self, transforms: Sequence[Any], keys: Sequence[str] = ("image", "label"), prepare: Any = default_prepare_batch
    ) -> None:
        self.transform, self.keys, self.prepare = composed(transforms), list(keys), prepare

    def attach(self, engine: Engine) -> None:
        """Seed anew at each epoch from torch's seed, which ``EpochSeed`` before it sets: a resumed run draws alike."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._seed)

    def _seed(self, engine: Any) -> None:
        self.transform.set_random_state(seed=int(torch.initial_seed() % 2**31))

    def __call__(self, batch: Mapping[str, Any], device: Any = None, non_blocking: bool = False, **options: Any) -> Any:
        """Inputs and targets for the network, as ``prepare`` gives them."""
        moved = {
            key: value.to(device, non_blocking=non_blocking)
            for key, value in batch.items()
            if key in self.keys and isinstance(value, torch.Tensor)
        }
        with torch.no_grad():
            cases = [self.transform(case) for case in decollate_batch(moved, detach=False)]
        return self.prepare({**batch, **list_data_collate(cases)}, device, non_blocking, **options)
