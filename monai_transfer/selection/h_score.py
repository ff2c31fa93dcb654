"""Regularised H-score: the share of the features' variance, whitened, that lies between the classes.

    H = (1 - a) tr(C_a^-1 Z),    C_a = (1 - a) C + a tr(C)/D I

with C the covariance of the features, Z that of their class means (both with divisor N), a the Ledoit-Wolf shrinkage.
Higher is better; at most K - 1 for K classes.

Paper: Bao et al., An Information-Theoretic Approach to Transferability in Task Transfer Learning, ICIP 2019; shrinkage:
Ibrahim, Ponomareva, Mazumder, Newer is not always better, ECML PKDD 2022, arXiv:2110.06893

Without shrinkage and with N < D the score reaches its maximum K - 1 on *random* labels. Shrinkage tempers that but does
not cure it: a warning says so, and the permutation null shows by how much.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage

from monai_transfer.selection.inputs import as_classes, as_features

__all__ = ["h_score", "prepare_h_score"]


def h_score(features: Any, labels: Any, *, shrinkage: float | None = None) -> float:
    """H-score of N x D ``features`` for N class ``labels``.

    Args:
        shrinkage: between 0 (the plain H-score) and 1; by default as Ledoit and Wolf estimate it.

    Raises:
        InputError: shapes that do not fit, NaN, only one class, or labels that are no classes.

    >>> import numpy as np
    >>> from monai_transfer.selection.h_score import h_score
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 50)
    >>> useful, useless = rng.standard_normal((100, 4)) + 2 * labels[:, None], rng.standard_normal((100, 4))
    >>> h_score(useful, labels) > 3 * h_score(useless, labels)
    True
    """
    return prepare_h_score(features, shrinkage=shrinkage)(labels)


def prepare_h_score(features: Any, *, shrinkage: float | None = None) -> Callable[[Any], float]:
    """The same as a function of the labels alone; the features are whitened once.

    Args:
        features: N x D.
        shrinkage: of the covariance, 0 to 1; None: Ledoit and Wolf's.

    >>> rng = np.random.default_rng(0)
    >>> features, labels = rng.normal(size=(60, 4)), np.repeat([0, 1], 30)
    >>> score = prepare_h_score(features)
    >>> score(labels) == h_score(features, labels)
    True
    """
    features = as_features(features)
    n, d = features.shape
    if n < d:
        warnings.warn(
            f"H-score of {n} cases with {d} features: with fewer cases than features even random labels score high; "
            "read it beside its permutation null",
            stacklevel=3,
        )
    centred = features - features.mean(0)
    if shrinkage is None:
        shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    variances = singular**2 / n
    # in the eigenbasis of C the shrunk covariance is diagonal, and class means lie in the span of the data
    shrunk = (1 - shrinkage) * variances + shrinkage * variances.sum() / d
    live = shrunk > variances.max() * n * np.finfo(float).eps
    white = np.where(live, singular / np.sqrt(np.where(live, shrunk, 1)), 0) * left

    def score(labels: Any) -> float:
        indices, k = as_classes(labels, n)
        one_hot = np.eye(k)[indices]
        sizes = one_hot.sum(0)
        means = one_hot.T @ white / sizes[:, None]
        return float((1 - shrinkage) * (sizes / n * (means**2).sum(1)).sum())

    return score
