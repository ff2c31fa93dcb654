"""BNM: the nuclear norm of the prediction matrix, large when predictions are both sure and diverse.

    BNM = ||P||_* / N,    P the N x C matrix of predictions

Higher is better: |p|/sqrt(N) for a constant prediction p, sqrt(C/N) for sure and balanced ones. It depends on N, so
compare it only over the same cases.

Paper: Cui et al., Towards Discriminability and Diversity: Batch Nuclear-norm Maximization, CVPR 2020, arXiv:2003.12237
(as a validator: Musgrave, Belongie, Lim, arXiv:2208.07360)
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from monai_transfer.selection.validators.summary import PredictionSummary, summarise

__all__ = ["bnm"]


def bnm(predictions: PredictionSummary | Tensor | np.ndarray) -> float:
    """Nuclear norm over N of B x C [x spatial] probabilities; of voxels a class-balanced sample is taken.

    Raises:
        InputError: no probabilities, or none at all.

    >>> import numpy as np
    >>> from monai_transfer.selection.validators.nuclear_norm import bnm
    >>> bnm(np.eye(2)) > bnm(np.array([[1.0, 0.0], [1.0, 0.0]]))  # balanced predictions score higher
    True
    """
    rows = summarise(predictions).sample
    return float(np.linalg.norm(rows, "nuc")) / len(rows)
