"""The course of the learning rate: up over the first epochs, then down to 0 along a cosine; prolonged runs too."""

from __future__ import annotations

import logging
import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["WarmUpCosine", "warm_up_cosine"]

logger = logging.getLogger(__name__)


class WarmUpCosine(LRScheduler):
    """A scheduler that is stepped once per epoch.

    Over the first ``warm_up`` of the epochs the rate rises in equal steps to its full value, which the last of them
    has; then it falls along half a cosine and would be 0 after the last epoch. Without it the first steps, with Adam's
    moments still empty, would move the source's weights furthest.

    A state of a shorter training that has ended may be loaded, to prolong it: the rate is 0 there, so it rises again
    over the first ``warm_up`` of the epochs that are added (at least one) to where a training of the new length would
    be, and falls with that to 0.

    Args:
        optimizer: with its full learning rates.
        epochs: of the whole training.
        warm_up: share of the epochs, at least one epoch where it is not 0.

    Paper: Loshchilov and Hutter, SGDR, ICLR 2017, arXiv:1608.03983 (cosine, and starting it again)

    >>> import torch
    >>> sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> course, rates = WarmUpCosine(sgd, epochs=6, warm_up=0.3), []
    >>> for _ in range(6):
    ...     rates.append(round(sgd.param_groups[0]["lr"], 2))
    ...     sgd.step()
    ...     course.step()
    >>> rates
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
    """

    def __init__(self, optimizer: Optimizer, epochs: int, warm_up: float = 0.1) -> None:
        self.epochs, self.warm_up = int(epochs), float(warm_up)
        self.prolonged_at: int | None = None
        super().__init__(optimizer)

    def factor(self, epoch: int) -> float:
        """The share of the full rate in an epoch, counted from 0."""
        rising = max(1, round(self.warm_up * self.epochs)) if self.warm_up else 0
        if epoch < rising:
            return (epoch + 1) / rising
        done = (epoch - rising) / max(1, self.epochs - rising)
        course = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        if self.prolonged_at is None or epoch < self.prolonged_at:
            return course
        again = max(1, round(self.warm_up * (self.epochs - self.prolonged_at)))
        return course * min(1.0, (epoch - self.prolonged_at + 1) / again)

    def get_lr(self) -> list[float | Tensor]:
        """The rates of the optimizer's groups in the present epoch."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state; from that of a shorter training, see the class."""
        state = dict(state_dict)
        before = int(state.pop("epochs", self.epochs))
        own = ("last_epoch", "base_lrs", "prolonged_at", "_step_count", "_last_lr")
        super().load_state_dict({key: value for key, value in state.items() if key in own})
        if self.epochs == before:
            return
        if self.last_epoch >= before:
            self.prolonged_at = self.last_epoch
            logger.info(
                "prolonged from %d to %d epochs: the learning rate rises to %.0f %% of its full value, where a run of "
                "%d epochs would be, and falls to 0",
                before, self.epochs, 100 * max(map(self.factor, range(self.last_epoch, self.epochs)), default=0),
                self.epochs,
            )  # fmt: skip
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate  # of the new course; the optimizer's own state holds the old one's
        self._last_lr = self.get_lr()


def warm_up_cosine(optimizer: Optimizer, epochs: int, warm_up: float = 0.1) -> WarmUpCosine:
    """``WarmUpCosine`` under the name that bundles know it by.

    Args:
        optimizer, epochs, warm_up: as there.

    >>> import torch
    >>> warm_up_cosine(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0), epochs=4).epochs
    4
    """
    return WarmUpCosine(optimizer, epochs, warm_up)
