"""LogME: how well a Bayesian linear model on frozen features explains the labels.

For each class (one-hot column, +1/0) or regression target y, with w ~ N(0, I/alpha) and y = F w + N(0, I/beta):

    LogME = max over alpha, beta of log p(y | F, alpha, beta) / N,    p(y | F, alpha, beta) = N(0, F F^T/alpha + I/beta)

averaged over the columns. Higher is better.

Paper: You, Liu, Wang, Long, LogME: Practical Assessment of Pre-trained Models for Transfer Learning, ICML 2021,
arXiv:2102.11005

Exact for N < D, which is the rule in medical work: in the eigenbasis of F F^T the marginal likelihood is a product of
N one-dimensional Gaussians. The noise level has a closed form given the ratio alpha/beta, so what is left is one
number to search, and the search is global; a widely copied fixed point stops early and drops (D - k)/2 log(alpha).
Features are taken as they are: no centring, no scaling (a common factor does not change the result).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from monai_transfer.selection.inputs import as_classes, as_features, as_labels, is_regression

__all__ = ["logme", "prepare_logme"]

# The ratio alpha/beta is searched over this many decades below and above the largest squared singular value. Beyond
# them the model is "no signal" or "no noise" to double precision.
_DECADES = 14
_STEPS_PER_DECADE = 8


def logme(features: Any, labels: Any, *, regression: bool | None = None) -> float:
    """LogME of N x D ``features`` for N ``labels``.

    Args:
        labels: classes (integers, booleans or names), or quantities (N or N x K floats).
        regression: whether labels are quantities; by default a float dtype says so.

    Raises:
        InputError: shapes that do not fit, NaN, or only one class.

    Random labels on many features are worth nothing, whatever the number of features:

    >>> import numpy as np
    >>> from monai_transfer.selection.logme import logme
    >>> rng = np.random.default_rng(0)
    >>> features, labels = rng.standard_normal((20, 256)), rng.integers(0, 2, 20)
    >>> round(logme(features, labels), 7)
    -1.0594479
    """
    return prepare_logme(features, regression=regression)(labels)


def prepare_logme(features: Any, *, regression: bool | None = None) -> Callable[[Any], float]:
    """The same as a function of the labels alone; the decomposition of the features is done once.

    Args:
        features: N x D.
        regression: the labels are quantities; None: as ``is_regression`` tells.

    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 30)
    >>> score = prepare_logme(rng.normal(size=(60, 4)) + 3 * labels[:, None])
    >>> score(labels) > score(rng.permutation(labels))  # random labels are less likely
    True
    """
    features = as_features(features)
    n = len(features)
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    eigenvalues = singular**2

    def score(labels: Any) -> float:
        if is_regression(labels) if regression is None else regression:
            targets = as_labels(labels, n).astype(np.float64).reshape(n, -1)
        else:
            indices, k = as_classes(labels, n)
            targets = np.eye(k)[indices]
        return float(np.mean([_evidence(left, eigenvalues, y) for y in targets.T])) / n

    return score


def _evidence(left: np.ndarray, eigenvalues: np.ndarray, y: np.ndarray) -> float:
    """The largest log p(y | F, alpha, beta), for y (N), the left singular vectors (N x k), k eigenvalues of F F^T."""
    n, k = left.shape
    inside = (left.T @ y) ** 2
    # what lies outside the span of the features; rounding must not make it negative
    outside = max(float(y @ y - inside.sum()), 0.0) if k < n else 0.0
    top = max(float(eigenvalues.max()), np.finfo(float).tiny)
    floor = np.finfo(float).eps ** 2 * max(float(y @ y), np.finfo(float).tiny) / n  # keeps a perfect fit finite

    def negative(log_ratio: np.ndarray | float) -> np.ndarray:
        # variance along direction i is noise * (1 + eigenvalue_i / ratio), with ratio = alpha / beta
        gain = 1 + eigenvalues / (top * np.exp(np.atleast_1d(log_ratio))[:, None])
        noise = np.maximum(((inside / gain).sum(1) + outside) / n, floor)
        return 0.5 * (n * np.log(2 * np.pi * noise) + n + np.log(gain).sum(1))

    reach = _DECADES * np.log(10)
    grid = np.linspace(-reach, reach, 2 * _DECADES * _STEPS_PER_DECADE + 1)
    values = negative(grid)
    best = int(values.argmin())
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    refined = minimize_scalar(
        lambda t: float(negative(t)[0]), bounds=around, method="bounded", options={"xatol": 1e-10}
    )
    return -min(float(refined.fun), float(values[best]))
