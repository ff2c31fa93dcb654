"""Gaussian Bhattacharyya coefficient: how much the classes overlap in feature space, each seen as one Gaussian.

    GBC = -sum over ordered pairs of classes i != j of exp(-B(i, j))
    B   = 1/8 (m_i - m_j)^T S^-1 (m_i - m_j) + 1/2 log(|S| / sqrt(|S_i| |S_j|)),    S = (S_i + S_j)/2

At most 0 (no overlap); -K(K - 1) when all classes coincide. Features are first projected to at most 64 principal
components, as in the paper; the covariances are diagonal (or spherical), since few cases allow no more.

Paper: Pandy et al., Transferability Estimation using Bhattacharyya Class Separability,
CVPR 2022, arXiv:2111.12780
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.selection.inputs import as_classes, as_features

__all__ = ["gbc", "prepare_gbc"]

_FLOOR = 1e-6  # of the mean variance: a class of one case, or a constant feature, must not divide by zero


def gbc(
    features: Any, labels: Any, *, components: int = 64, covariance: Literal["diagonal", "spherical"] = "diagonal"
) -> float:
    """GBC of N x D ``features`` for N class ``labels``.

    Args:
        features: N x D.
        labels: N class labels.
        components: at most so many principal components are kept.
        covariance: of each class.

    Raises:
        InputError: shapes that do not fit, NaN, only one class, or an unknown kind of covariance.

    >>> import numpy as np
    >>> from monai_transfer.selection.gbc import gbc
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 50)
    >>> apart, mixed = rng.standard_normal((100, 2)) + 6 * labels[:, None], rng.standard_normal((100, 2))
    >>> gbc(apart, labels) > gbc(mixed, labels)  # minus the overlap of the classes: 0 is none
    True
    """
    return prepare_gbc(features, components=components, covariance=covariance)(labels)


def prepare_gbc(
    features: Any, *, components: int = 64, covariance: Literal["diagonal", "spherical"] = "diagonal"
) -> Callable[[Any], float]:
    """The same as a function of the labels alone; the projection is done once.

    Args:
        features: N x D.
        components: at most so many principal components are kept.
        covariance: of each class: ``diagonal`` or ``spherical``.

    Raises:
        InputError: an unknown kind of covariance, or features that are no finite N x D.

    >>> rng = np.random.default_rng(0)
    >>> features, labels = rng.normal(size=(60, 4)), np.repeat([0, 1], 30)
    >>> prepare_gbc(features)(labels) == gbc(features, labels)
    True
    """
    if covariance not in ("diagonal", "spherical"):
        raise InputError(
            f"covariance must be 'diagonal' or 'spherical', not {covariance!r}", hint="the default is diagonal"
        )
    features = as_features(features)
    n = len(features)
    left, singular, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
    rank = max(int((singular > singular.max() * 1e-10).sum()), 1)
    kept = min(components, rank)
    projected = left[:, :kept] * singular[:kept]
    floor = max(float(projected.var(0).mean()) * _FLOOR, np.finfo(float).tiny)

    def score(labels: Any) -> float:
        indices, k = as_classes(labels, n)
        one_hot = np.eye(k)[indices]
        sizes = one_hot.sum(0)[:, None]
        means = one_hot.T @ projected / sizes
        variances = one_hot.T @ (projected - means[indices]) ** 2 / sizes
        if covariance == "spherical":
            variances = np.repeat(variances.mean(1, keepdims=True), kept, 1)
        variances = np.maximum(variances, floor)
        pooled = (variances[:, None] + variances[None]) / 2
        distance = ((means[:, None] - means[None]) ** 2 / pooled).sum(-1) / 8
        logs = np.log(variances).sum(1)
        distance += 0.5 * (np.log(pooled).sum(-1) - 0.5 * (logs[:, None] + logs[None]))
        return float(k - np.exp(-distance).sum())  # the diagonal is exp(0) = 1, K times

    return score
