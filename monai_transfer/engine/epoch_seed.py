"""One seed per epoch, so that a resumed run draws the very numbers that the uninterrupted one would have drawn."""

from __future__ import annotations

import random

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd

from monai_transfer.engine.processes import process_rank

__all__ = ["EpochSeed"]


class EpochSeed:
    """Seed torch, numpy, ``random`` and the dataset's random transforms from (seed, epoch, rank) at each epoch's start.

    Put it first among the trainer's handlers. The state of an epoch then depends on nothing that happened before it,
    and no generator state has to be stored. Ranks draw different augmentations.

    Args:
        seed: the run's seed.
        loaders: further loaders (e.g. the target's) whose datasets hold random transforms.

    >>> import torch
    >>> from ignite.engine import Engine
    >>> def drawn():
    ...     engine = Engine(lambda engine, batch: float(torch.rand(1)))
    ...     engine.add_event_handler(Events.EPOCH_STARTED, EpochSeed(seed=3))
    ...     return engine.run([0], max_epochs=2).output
    >>> drawn() == drawn()  # the second epoch's number, both times
    True
    """

    def __init__(self, seed: int = 0, loaders: tuple | list | None = ()) -> None:
        self.seed, self.loaders = int(seed), list(loaders or ())

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed for ``engine.state.epoch``."""
        rank = process_rank()
        sequence = np.random.SeedSequence([self.seed, engine.state.epoch, rank])
        for_torch, for_numpy, for_python, *for_data = (
            int(value) for value in sequence.generate_state(4 + len(self.loaders))
        )
        torch.manual_seed(for_torch)
        np.random.seed(for_numpy)
        random.seed(for_python)
        for loader, seed in zip([getattr(engine, "data_loader", None), *self.loaders], for_data, strict=True):
            dataset = getattr(loader, "dataset", None)
            if dataset is not None:
                set_rnd(dataset, seed % 2**31)
        sampler = getattr(getattr(engine, "data_loader", None), "sampler", None)
        set_epoch = getattr(sampler, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(engine.state.epoch)
