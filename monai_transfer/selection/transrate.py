"""TransRate: the mutual information of features and labels, by coding rate.

    TrR = R(F) - sum_c n_c/n R(F_c),    R(F) = 1/2 log det(I + F^T F / (n eps))

with F centred over all cases and F_c its rows of class c. Higher is better; 0 or more.

Paper: Huang, Huang, Li, Chen, Wei, Frustratingly Easy Transferability Estimation, ICML 2022, arXiv:2106.09207

The classes are weighted by their size, as in the paper's formula; its public code takes their plain mean, which is the
same for balanced classes only. The value depends on the scale of the features: bring networks to a common scale
(``unit_variance=True``) before comparing them. As published the rows of a class are not centred on the class, so two
balanced classes at +m and -m look the same to R(F_c) and their separation counts nothing: ``centre_classes=True``
subtracts the class means, as mutual information wants it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.selection.inputs import as_classes, as_features

__all__ = ["prepare_transrate", "transrate"]


def transrate(
    features: Any, labels: Any, *, eps: float = 1e-4, unit_variance: bool = False, centre_classes: bool = False
) -> float:
    """TransRate (nats) of N x D ``features`` for N class ``labels``.

    Args:
        eps: squared distortion of the code, in squared units of the features.
        unit_variance: divide the features by one number, so that their total variance is 1.
        centre_classes: subtract each class's mean before its rate is taken; not in the paper.

    Raises:
        InputError: shapes that do not fit, NaN, only one class, or ``eps`` not positive.

    As published, classes at +m and -m look the same; ``centre_classes`` corrects that:

    >>> import numpy as np
    >>> from monai_transfer.selection.transrate import transrate
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 50)
    >>> useful, useless = rng.standard_normal((100, 4)) + 4 * labels[:, None], rng.standard_normal((100, 4))
    >>> transrate(useful, labels, centre_classes=True) > transrate(useless, labels, centre_classes=True)
    True
    """
    return prepare_transrate(features, eps=eps, unit_variance=unit_variance, centre_classes=centre_classes)(labels)


def prepare_transrate(
    features: Any, *, eps: float = 1e-4, unit_variance: bool = False, centre_classes: bool = False
) -> Callable[[Any], float]:
    """The same as a function of the labels alone.

    Raises:
        InputError: ``eps`` is not positive.
    """
    if not eps > 0:
        raise InputError(f"eps must be positive, not {eps}", hint="such as eps=1e-4")
    features = as_features(features)
    n = len(features)
    centred = features - features.mean(0)
    if unit_variance:
        centred = centred / max(np.sqrt((centred**2).sum() / n), np.finfo(float).tiny)
    # determinants do not change under rotation: N columns are enough where N < D
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    turned = left * singular
    whole = _coding_rate(turned, eps)

    def score(labels: Any) -> float:
        indices, k = as_classes(labels, n)
        parts = [turned[indices == c] for c in range(k)]
        if centre_classes:
            parts = [part - part.mean(0) for part in parts]
        return whole - sum(len(part) / n * _coding_rate(part, eps) for part in parts)

    return score


def _coding_rate(rows: np.ndarray, eps: float) -> float:
    n, d = rows.shape
    gram = rows.T @ rows if d <= n else rows @ rows.T
    return float(0.5 * np.linalg.slogdet(np.eye(len(gram)) + gram / (n * eps))[1])
