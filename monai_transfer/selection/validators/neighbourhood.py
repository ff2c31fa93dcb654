"""Soft neighbourhood density: do target predictions form dense clusters?

    S_ij = softmax over j != i of (f_i . f_j / T),   SND = mean_i H(S_i)          T = 0.05

with f the L2-normalised predicted probabilities (or features). Higher is better: each point has many near neighbours.
The largest possible value is log(N - 1), and a constant prediction reaches it: read SND with the collapse alarm.

Paper: Saito et al., Tune it the Right Way: Unsupervised Validation of Domain Adaptation via Soft Neighborhood Density,
ICCV 2021, arXiv:2108.10860

The paper leaves out the point itself (its public code gives it similarity -1 instead, which is the same up to
exp(-2/T)). For segmentation the rows are voxels, drawn evenly from the predicted classes of each volume.
"""

from __future__ import annotations

import numpy as np
from scipy.special import entr, softmax
from torch import Tensor

from monai_transfer.errors import InputError
from monai_transfer.selection.validators.summary import PredictionSummary, summarise

__all__ = ["snd"]


def snd(
    predictions: PredictionSummary | Tensor | np.ndarray,
    features: np.ndarray | None = None,
    *,
    temperature: float = 0.05,
) -> float:
    """SND (nats) of B x C [x spatial] probabilities, or of N x F ``features`` where given.

    Raises:
        InputError: no probabilities, fewer than three rows, or a temperature that is not positive.

    Two groups of equal predictions: each case has four near neighbours, so log 4 = 1.39.

    >>> import numpy as np
    >>> round(snd(np.repeat([[1.0, 0.0], [0.0, 1.0]], 5, axis=0)), 2)
    1.39
    """
    if not temperature > 0:
        raise InputError(f"temperature must be positive, not {temperature}", hint="such as 0.05")
    rows = np.asarray(features, dtype=np.float64) if features is not None else summarise(predictions).sample
    if len(rows) < 3:
        raise InputError(f"a neighbourhood needs at least three cases, not {len(rows)}", hint="give more cases")
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)
    total = 0.0
    for start in range(0, len(unit), 512):  # a block of the N x N matrix at a time
        block = unit[start : start + 512] @ unit.T / temperature
        block[np.arange(len(block)), start + np.arange(len(block))] = -np.inf
        total += float(entr(softmax(block, axis=1)).sum())
    return total / len(unit)
