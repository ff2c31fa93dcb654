"""How a term's weight grows with the share of the run that is done."""

from __future__ import annotations

import math

__all__ = ["dann_lambda", "sigmoid_ramp"]


def dann_lambda(progress: float) -> float:
    """2 / (1 + exp(-10 p)) - 1 at ``progress`` in [0, 1]: 0 at the start, 0.9999 at the end (Ganin and Lempitsky)."""
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


def sigmoid_ramp(progress: float, length: float = 1.0) -> float:
    """exp(-5 (1 - t)^2) with t = progress / length, 1 from ``length`` on; 0.0067 at the start (Laine and Aila 2017)."""
    if length <= 0 or progress >= length:
        return 1.0
    return math.exp(-5.0 * (1.0 - progress / length) ** 2)
