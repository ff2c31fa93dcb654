"""An optimizer of the same kind and options as another, for parameters that are to learn as a network's own do."""

from __future__ import annotations

import inspect
from typing import Any

import torch

__all__ = ["optimizer_like"]


def optimizer_like(other: torch.optim.Optimizer, groups: list[Any]) -> torch.optim.Optimizer:
    """An optimizer of ``other``'s class with its defaults.

    Args:
        other: whose kind is taken.
        groups: parameters, or groups of them with options of their own.

    >>> w = torch.nn.Parameter(torch.ones(1))
    >>> twin = optimizer_like(torch.optim.SGD([w], lr=0.3, momentum=0.9), [torch.nn.Parameter(torch.ones(1))])
    >>> type(twin).__name__, twin.defaults["lr"], twin.defaults["momentum"]
    ('SGD', 0.3, 0.9)
    """
    accepted = inspect.signature(type(other)).parameters
    return type(other)(groups, **{key: value for key, value in other.defaults.items() if key in accepted})
