"""IST: how little a case's neighbours tell of its domain.

    q_i = share of source cases among the neighbours of case i, softly: sum over source j != i of softmax_j(f_i.f_j / T)
    IST = -(H(mean_i q_i) - mean_i H(q_i))                              in [-log 2, 0]

Higher is better: 0 when source and target are mixed everywhere. It is blind to classes: a network that maps everything
to one point is rated best, so read it with the collapse alarm.

Paper: Shi and Sha, Information-Theoretical Learning of Discriminative Clusters for Unsupervised Domain Adaptation, ICML
2012 (as a validator: Musgrave, Belongie, Lim, arXiv:2208.07360)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import entr, softmax

from monai_transfer.errors import InputError
from monai_transfer.selection.inputs import as_features

__all__ = ["ist"]


def ist(source_features: Any, target_features: Any, *, temperature: float = 0.05) -> float:
    """IST of N x F source and M x F target features; every domain weighs the same, whatever its size.

    Args:
        source_features: N x F.
        target_features: M x F.
        temperature: cosines are divided by it.

    Raises:
        InputError: shapes that do not fit, NaN, a domain of fewer than two cases, or a temperature not positive.

    Domains that lie apart, and domains in one place:

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> source, target = rng.normal(size=(2, 50, 8))
    >>> apart, mixed = ist(source + 3, target - 3), ist(source, target)
    >>> round(apart, 2), mixed > apart + 0.2  # the least value is -log 2
    (-0.69, True)
    """
    source, target = as_features(source_features, "source features"), as_features(target_features, "target features")
    if source.shape[1] != target.shape[1]:
        raise InputError(
            f"source has {source.shape[1]} features and target {target.shape[1]}",
            hint="take the features of one layer of one network",
        )
    if not temperature > 0 or min(len(source), len(target)) < 2:
        raise InputError(
            "IST needs two cases in each domain and a positive temperature", hint="the default temperature is 0.05"
        )
    both = np.vstack([source, target])
    unit = both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), np.finfo(float).tiny)
    is_source = np.arange(len(both)) < len(source)
    similarity = unit @ unit.T / temperature
    # each domain's neighbours share one unit of weight, so that unequal sizes do not look like a gap
    same = is_source[:, None] == is_source[None]
    size = np.where(is_source, len(source), len(target))
    similarity -= np.log(np.where(same, size - 1, size))
    np.fill_diagonal(similarity, -np.inf)
    from_source = softmax(similarity, axis=1)[:, is_source].sum(1).clip(0, 1)
    weights = 0.5 / size
    mean = float((weights * from_source).sum())
    each = entr(from_source) + entr(1 - from_source)
    return float((weights * each).sum() - (entr(mean) + entr(1 - mean)))
