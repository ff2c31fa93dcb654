"""Entropy and information maximisation: are the predictions sure, and do they still use all classes?

    entropy = -mean H(p) / log C                                  in [-1, 0]
    IM      = (H(mean p) - mean H(p)) / log C                     in [0, 1]: mutual information of input and prediction

Higher is better. Entropy alone loves a network that calls everything background with great confidence; IM does not,
but prefers balanced predictions, so it errs where classes are truly rare.

Paper: Morerio, Cavazza, Murino, Minimal-Entropy Correlation Alignment, ICLR 2018, arXiv:1711.10288 (entropy); Musgrave,
Belongie, Lim, Three New Validators and a Large-Scale Benchmark Ranking for UDA, 2022, arXiv:2208.07360 (both compared)
"""

from __future__ import annotations

import numpy as np
from scipy.special import entr
from torch import Tensor

from monai_transfer.selection.validators.summary import PredictionSummary, summarise

__all__ = ["entropy", "information_maximisation"]


def entropy(predictions: PredictionSummary | Tensor | np.ndarray) -> float:
    """Minus the mean normalised entropy of B x C [x spatial] probabilities.

    Raises:
        InputError: no probabilities, or none at all.
    """
    summary = summarise(predictions)
    return float(-summary.mean_entropy / np.log(summary.n_classes)) + 0.0


def information_maximisation(predictions: PredictionSummary | Tensor | np.ndarray) -> float:
    """Normalised mutual information of case (or voxel) and predicted class, of B x C [x spatial] probabilities.

    Raises:
        InputError: no probabilities, or none at all.
    """
    summary = summarise(predictions)
    diversity = float(entr(summary.mean_probabilities).sum())
    return float((diversity - summary.mean_entropy) / np.log(summary.n_classes))
