"""The weights of one network as a moving average of another's."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ema_update"]


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, decay: float, *, buffers: bool = True) -> None:
    """teacher <- decay * teacher + (1 - decay) * student for parameters; buffers are copied as they are.

    Args:
        teacher, student: of the same architecture.
        decay: share of the teacher that stays, in [0, 1].
        buffers: ``False`` leaves the teacher's own, such as running statistics of what it sees itself.

    >>> import torch
    >>> from monai_transfer.networks.moving_average import ema_update
    >>> teacher, student = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    >>> _ = teacher.weight.data.fill_(0.0), student.weight.data.fill_(1.0)
    >>> ema_update(teacher, student, decay=0.9)
    >>> round(teacher.weight.item(), 6)
    0.1
    """
    for ours, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        ours.lerp_(theirs.detach().to(ours.dtype), 1.0 - decay)
    if buffers:
        for kept, current in zip(teacher.buffers(), student.buffers(), strict=True):
            kept.copy_(current)
