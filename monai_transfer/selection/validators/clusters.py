"""Class clustering: do target features fall into clusters that agree with the predicted classes?

Calinski-Harabasz index (between-class over within-class dispersion, >= 0) or mean silhouette (in [-1, 1]) of target
features, with the predicted classes as clusters; no source, no labels. Higher is better. Where a single class is
predicted there is nothing to compare: the worst value, 0 or -1.

Paper: Musgrave, Belongie, Lim, Three New Validators and a Large-Scale Benchmark Ranking for Unsupervised Domain
Adaptation, 2022, arXiv:2208.07360 (class clustering, there "ClassAMI" and its kin); Calinski and Harabasz 1974;
Rousseeuw 1987
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from sklearn.metrics import calinski_harabasz_score, silhouette_score
from torch import Tensor

from monai_transfer.errors import InputError
from monai_transfer.selection.validators.summary import PredictionSummary, summarise

__all__ = ["class_clustering"]


def class_clustering(
    predictions: PredictionSummary | Tensor | np.ndarray,
    features: Tensor | np.ndarray | None = None,
    *,
    index: Literal["calinski_harabasz", "silhouette"] = "calinski_harabasz",
) -> float:
    """Cluster index of N x F ``features`` (by default the logits) under the classes of B x C [x spatial] probabilities.

    Raises:
        InputError: no probabilities, features of another length, or an unknown index.

    Features that cluster as the predictions say have a larger index:

    >>> import numpy as np
    >>> predictions = np.repeat(np.eye(2) * 0.8 + 0.1, 5, axis=0)
    >>> features = np.repeat([[0.0, 0.0], [4.0, 4.0]], 5, axis=0) + np.random.default_rng(0).normal(0, 0.1, (10, 2))
    >>> class_clustering(predictions, features) > 100 * class_clustering(predictions, np.roll(features, 2, axis=0))
    True
    """
    if index not in ("calinski_harabasz", "silhouette"):
        raise InputError(
            f"index must be 'calinski_harabasz' or 'silhouette', not {index!r}", hint="the default is calinski_harabasz"
        )
    summary = summarise(predictions, features)
    classes, rows = summary.sample.argmax(1), summary.features
    if not 2 <= len(np.unique(classes)) < len(classes):
        return -1.0 if index == "silhouette" else 0.0
    return float((silhouette_score if index == "silhouette" else calinski_harabasz_score)(rows, classes))
