"""Learned distances of two sets of feature vectors: proxy A-distance and unbiased MMD.

Paper: Ben-David et al., Analysis of Representations for Domain Adaptation, NIPS 2006 (A-distance); Gretton et al., A
Kernel Two-Sample Test, JMLR 2012 (MMD and its permutation test)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_transfer.errors import InputError
from monai_transfer.selection.inputs import as_features, as_labels

__all__ = ["Mmd", "domain_classifier", "group_means", "mmd", "proxy_a_distance"]


def domain_classifier(a: Any, b: Any, groups_a: Any = None, groups_b: Any = None, *, seed: int = 0) -> np.ndarray:
    """Whether a held-out linear classifier recognises the domain of each row of ``a`` (N x F) and ``b`` (M x F); N + M.

    No patient (group) stands in training and test fold. Both domains weigh the same.

    Args:
        a: N x F.
        b: M x F.
        groups_a: patient of each row of ``a``; None: each row is one.
        groups_b: likewise of ``b``.
        seed: of the folds.

    Raises:
        InputError: shapes that do not fit, NaN, or a domain with fewer than two patients.

    Domains three standard deviations apart are recognised, equal ones are not:

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.standard_normal((40, 2)), rng.standard_normal((40, 2))
    >>> [bool(domain_classifier(a, other).mean() > 0.9) for other in (b + 3, b)]
    [True, False]
    """
    a, b, groups = _both(a, b, groups_a, groups_b)
    features, domain = np.vstack([a, b]), np.repeat([0, 1], [len(a), len(b)])
    folds = min(5, *(len(np.unique(groups[domain == d])) for d in (0, 1)))
    if folds < 2:
        raise InputError(
            "a held-out domain classifier needs at least two patients in each domain", hint="give more patients"
        )
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=500))
    right = np.zeros(len(features), dtype=bool)
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, domain, groups):
        if len(np.unique(domain[train])) == 2 and len(test):
            right[test] = model.fit(features[train], domain[train]).predict(features[test]) == domain[test]
    return right


def proxy_a_distance(a: Any, b: Any, groups_a: Any = None, groups_b: Any = None, *, seed: int = 0) -> float:
    """2 (1 - 2 e), with e the balanced error of ``domain_classifier``: 0 (or a little less) same, 2 fully apart.

    Args:
        a: N x F.
        b: M x F.
        groups_a: patient of each row of ``a``; None: each row is one.
        groups_b: likewise of ``b``.
        seed: of the folds.

    Raises:
        InputError: as ``domain_classifier``.

    >>> import numpy as np
    >>> from monai_transfer.selection.distances import proxy_a_distance
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.standard_normal((60, 4)), rng.standard_normal((60, 4)) + 5
    >>> round(proxy_a_distance(a, b), 1)  # 2: a linear classifier never errs
    2.0
    """
    right = domain_classifier(a, b, groups_a, groups_b, seed=seed)
    error = 1 - (right[: len(a)].mean() + right[len(a) :].mean()) / 2
    return float(2 * (1 - 2 * error))


@dataclass(frozen=True)
class Mmd:
    """A squared MMD with what is known of it.

    Args:
        value: unbiased squared MMD; may be negative.
        error: its standard error.
        p_value: by permutation of the patients.

    >>> rng = np.random.default_rng(0)
    >>> found = mmd(rng.normal(size=(40, 4)), rng.normal(size=(40, 4)) + 2)
    >>> found.value > 3 * found.error
    True
    """

    value: float
    error: float
    p_value: float


def mmd(a: Any, b: Any, groups_a: Any = None, groups_b: Any = None, *, n: int = 200, seed: int = 0) -> Mmd:
    """Unbiased squared MMD of ``a`` (N x F) and ``b`` (M x F) with a Gaussian kernel, patients as units.

    Rows of a patient are averaged first. Features are standardised together; the kernel's width is the median distance.
    The error is the larger of the jackknife's over patients and the spread under permutation (at a gap of 0 the
    jackknife is too small).

    Args:
        a: N x F.
        b: M x F.
        groups_a: patient of each row of ``a``; None: each row is one.
        groups_b: likewise of ``b``.
        n: permutations.
        seed: of them.

    Raises:
        InputError: shapes that do not fit, NaN, or a domain with fewer than two patients.

    >>> import numpy as np
    >>> from monai_transfer.selection.distances import mmd
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.standard_normal((40, 4)), rng.standard_normal((40, 4)) + 2
    >>> mmd(a, b).p_value < 0.05, mmd(a, rng.standard_normal((40, 4))).p_value > 0.05
    (True, True)
    """
    a, b, groups = _both(a, b, groups_a, groups_b)
    a, b = group_means(a, groups[: len(a)]), group_means(b, groups[len(a) :])
    if min(len(a), len(b)) < 2:
        raise InputError("MMD needs at least two patients in each domain", hint="give more patients")
    both = StandardScaler().fit_transform(np.vstack([a, b]))
    squared = cdist(both, both, "sqeuclidean")
    upper = squared[np.triu_indices(len(both), 1)]
    kernel = np.exp(-squared / max(float(np.median(upper)), 1e-12))
    is_a = np.arange(len(both)) < len(a)
    value = _mmd2(kernel, is_a)
    rng = np.random.default_rng(seed)
    null = np.array([_mmd2(kernel, rng.permutation(is_a)) for _ in range(n)])
    left_out = np.ones(len(both), dtype=bool)
    jackknife = 0.0
    for members in (np.flatnonzero(is_a), np.flatnonzero(~is_a)):
        if len(members) < 3:
            continue
        values: list[float] = []
        for i in members:
            left_out[i] = False
            values.append(_mmd2(kernel[np.ix_(left_out, left_out)], is_a[left_out]))
            left_out[i] = True
        jackknife += (len(members) - 1) / len(members) * float(((np.array(values) - np.mean(values)) ** 2).sum())
    p_value = (1 + int((null >= value - 1e-12).sum())) / (1 + n)
    return Mmd(value, max(float(np.sqrt(jackknife)), float(null.std())), p_value)


def group_means(features: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """One row a group, in the order of their names."""
    names, members = np.unique(groups, return_inverse=True)
    return np.stack([features[members == g].mean(0) for g in range(len(names))])


def _mmd2(kernel: np.ndarray, is_a: np.ndarray) -> float:
    n, m = int(is_a.sum()), int((~is_a).sum())
    aa, bb, ab = kernel[np.ix_(is_a, is_a)], kernel[np.ix_(~is_a, ~is_a)], kernel[np.ix_(is_a, ~is_a)]
    same = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(same - 2 * ab.mean())


def _both(a: Any, b: Any, groups_a: Any, groups_b: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features as arrays, and groups over both; a patient that stands in both domains stays one group."""
    a, b = as_features(a), as_features(b)
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"the domains have {a.shape[1]} and {b.shape[1]} features",
            hint="take the features of one layer of one network",
        )
    given_a = (
        np.array([f"a{i}" for i in range(len(a))]) if groups_a is None else as_labels(groups_a, len(a)).astype(str)
    )
    given_b = (
        np.array([f"b{i}" for i in range(len(b))]) if groups_b is None else as_labels(groups_b, len(b)).astype(str)
    )
    return a, b, np.unique(np.concatenate([given_a, given_b]), return_inverse=True)[1]
