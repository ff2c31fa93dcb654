"""How a term's weight grows with the share of the run that is done."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["dann_lambda", "domain_lambda", "run_progress", "sigmoid_ramp"]


def run_progress(iteration: int, epoch_length: int | None, epochs: int, epoch: int = 1) -> float:
    """Share of a run done before the present batch, in [0, 1].

    Args:
        iteration: the present batch, counted from 1 over the whole run.
        epoch_length: batches per epoch; None where it is not known: whole epochs are counted then.
        epochs: of the run.
        epoch: the present one, from 1.

    >>> run_progress(1, 10, 2), run_progress(11, 10, 2)
    (0.0, 0.5)
    """
    done = iteration - 1 if epoch_length else epoch - 1
    return min(max(done / max((epoch_length or 1) * epochs, 1), 0.0), 1.0)


def dann_lambda(progress: float) -> float:
    """2 / (1 + exp(-10 p)) - 1 at ``progress`` in [0, 1]: 0 at the start, 0.9999 at the end (Ganin and Lempitsky).

    Args:
        progress: share of the run that is done, in [0, 1].

    >>> from monai_transfer.networks.schedules import dann_lambda
    >>> [round(dann_lambda(p), 4) for p in (0.0, 0.1, 0.5, 1.0)]
    [0.0, 0.4621, 0.9866, 0.9999]
    """
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


def domain_lambda(progress: float, order: Tensor, stages: int) -> tuple[Tensor, Tensor]:
    """``dann_lambda`` of each case's own domain, when domains enter the game one after the other.

    Domain k of K enters at p = k / K, and its weight grows with the share of what is left of the run:
    lambda_k(p) = dann_lambda((p - k / K) / (1 - k / K)).

    Args:
        progress: share of the run that is done, in [0, 1].
        order: B places in [0, 1], from the domain nearest to the source to the farthest.
        stages: K; 1 gives ``dann_lambda(progress)`` for every case.

    Returns:
        B weights, and B booleans: whether the case's domain has entered.

    A near and a far domain, a quarter into the run: only the near one has entered:

    >>> import torch
    >>> weights, entered = domain_lambda(0.25, torch.tensor([0.0, 1.0]), stages=2)
    >>> round(weights[0].item(), 3), entered.tolist()
    (0.848, [True, False])
    """
    start = (order.float() * stages).long().clamp(0, stages - 1) / stages
    own = ((progress - start) / (1 - start)).clamp_min(0)
    return 2 * torch.sigmoid(10 * own) - 1, start <= progress


def sigmoid_ramp(progress: float, length: float = 1.0) -> float:
    """exp(-5 (1 - t)^2) with t = progress / length, 1 from ``length`` on; 0.0067 at the start (Laine and Aila 2017).

    Args:
        progress: share of the run that is done, in [0, 1].
        length: share of the run over which it rises; 0: no ramp.

    >>> from monai_transfer.networks.schedules import sigmoid_ramp
    >>> [round(sigmoid_ramp(p, 0.5), 4) for p in (0.0, 0.25, 0.5, 1.0)]
    [0.0067, 0.2865, 1.0, 1.0]
    """
    if length <= 0 or progress >= length:
        return 1.0
    return math.exp(-5.0 * (1.0 - progress / length) ** 2)
