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

    >>> import numpy as np
    >>> from monai_transfer.selection.validators.entropies import entropy
    >>> entropy(np.array([[1.0, 0.0]])) + 0.0, entropy(np.array([[0.5, 0.5]]))
    (0.0, -1.0)
    """
    summary = summarise(predictions)
    return float(-summary.mean_entropy / np.log(summary.n_classes)) + 0.0


def information_maximisation(predictions: PredictionSummary | Tensor | np.ndarray) -> float:
    """Normalised mutual information of case (or voxel) and predicted class, of B x C [x spatial] probabilities.

    Raises:
        InputError: no probabilities, or none at all.

    Sure *and* spread over the classes is best; sure of one class for all cases is worth nothing:

    >>> import numpy as np
    >>> from monai_transfer.selection.validators.entropies import information_maximisation
    >>> spread, collapsed = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    >>> round(information_maximisation(spread), 3), round(information_maximisation(collapsed), 3)
    (1.0, 0.0)
    """
    summary = summarise(predictions)
    diversity = float(entr(summary.mean_probabilities).sum())
    return float((diversity - summary.mean_entropy) / np.log(summary.n_classes))
