"""The course of the learning rate: up over the first epochs, then down to 0 along a cosine."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["warm_up_cosine"]


def warm_up_cosine(optimizer: Optimizer, epochs: int, warm_up: float = 0.1) -> LambdaLR:
    """A scheduler that is stepped once per epoch.

    Over the first ``warm_up`` of the epochs the rate rises in equal steps to its full value, which the last of them
    has; then it falls along half a cosine and would be 0 after the last epoch. Without it the first steps, with Adam's
    moments still empty, would move the source's weights furthest.

    Args:
        optimizer: with its full learning rates.
        epochs: of the whole training.
        warm_up: share of the epochs, at least one epoch where it is not 0.

    >>> import torch
    >>> sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> course, rates = warm_up_cosine(sgd, epochs=6, warm_up=0.3), []
    >>> for _ in range(6):
    ...     rates.append(round(sgd.param_groups[0]["lr"], 2))
    ...     sgd.step()
    ...     course.step()
    >>> rates
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
    """
    rising = max(1, round(warm_up * epochs)) if warm_up else 0

    def factor(epoch: int) -> float:
        if epoch < rising:
            return (epoch + 1) / rising
        done = (epoch - rising) / max(1, epochs - rising)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return LambdaLR(optimizer, factor)
