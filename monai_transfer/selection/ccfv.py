"""CC-FV: transferability for segmentation, as class consistency between cases and variety of the features.

    CC = mean over classes k and pairs of cases i < j of W2(F_i^k, F_j^k)        a class should look alike in every case
    FV = mean over cases of 1 / E_1(F_i),  E_1 = mean over pairs of 1/|u - v|    features should not collapse to a point
    CC-FV = log FV - CC                                                          higher is better

F_i^k are the features of voxels of class k in case i; W2 is the 2-Wasserstein distance between two such samples of
equal size (exact, by assignment); in E_1, the hyperspherical energy, features are projected onto the unit sphere.

Paper: Yang, Wei, He, Yang, Ye, Gu, Pick the Best Pre-trained Model: Towards Transferability Estimation for Medical
Image Segmentation, MICCAI 2023, arXiv:2307.11958

Here one layer is scored; the paper averages over decoder layers, which is the mean of this score over them. Features
are divided by their overall root mean square spread first, so that networks of different scale can be compared, and
every case gives the same number of voxels per class. A class that stands in fewer than two cases is left out.

CC-FV asks whether a class looks alike everywhere, not whether classes differ: labels shuffled within cases mix the
classes and can look *more* alike, so a large permutation p value is possible for good features too.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist

from monai_transfer.errors import InputError
from monai_transfer.selection.inputs import as_classes, as_features, as_labels

__all__ = ["ccfv", "prepare_ccfv", "wasserstein2"]


def wasserstein2(a: np.ndarray, b: np.ndarray) -> float:
    """Exact 2-Wasserstein distance of two samples of equal size (m x D), each point weighing 1/m.

    Args:
        a: m x D.
        b: m x D.

    >>> import numpy as np
    >>> from monai_transfer.selection.ccfv import wasserstein2
    >>> round(wasserstein2(np.array([[0.0], [1.0]]), np.array([[4.0], [3.0]])), 4)  # every point moves by 3
    3.0
    """
    cost = cdist(a, b, "sqeuclidean")
    rows, columns = linear_sum_assignment(cost)
    return float(np.sqrt(cost[rows, columns].mean()))


def ccfv(features: Any, labels: Any, groups: Any, *, voxels: int = 32, seed: int = 0) -> float:
    """CC-FV of N voxels' ``features`` (N x D) and class ``labels`` (N) of the cases named in ``groups`` (N).

    Args:
        voxels: at most so many voxels are drawn per class and case.
        seed: of that draw.
        features: of N voxels, N x D.
        labels: their classes, N.
        groups: the case that each is of, N.

    Raises:
        InputError: shapes that do not fit, NaN, or no class that stands in two cases.

    Features that show the classes, and the same with labels at random:

    >>> rng = np.random.default_rng(0)
    >>> labels, cases = np.tile([0, 1], 60), np.repeat([0, 1, 2], 40)
    >>> features = rng.normal(size=(120, 4)) + 6 * labels[:, None]
    >>> ccfv(features, labels, cases) > ccfv(features, rng.permutation(labels), cases)
    True
    """
    return prepare_ccfv(features, groups, voxels=voxels, seed=seed)(labels)


def prepare_ccfv(features: Any, groups: Any, *, voxels: int = 32, seed: int = 0) -> Callable[[Any], float]:
    """The same as a function of the labels alone; the variety, which needs no labels, is computed once.

    Args:
        features: of N voxels, N x D.
        groups: the case that each is of, N.
        voxels: at most so many voxels are drawn per class and case.
        seed: of that draw.

    Raises:
        InputError: shapes that do not fit, NaN, or (as it is called) no class that stands in two cases.

    >>> rng = np.random.default_rng(0)
    >>> labels, cases, features = np.tile([0, 1], 60), np.repeat([0, 1, 2], 40), rng.normal(size=(120, 4))
    >>> prepare_ccfv(features, cases)(labels) == ccfv(features, labels, cases)
    True
    """
    features = as_features(features)
    n = len(features)
    cases = np.unique(as_labels(groups, n), return_inverse=True)[1]
    centred = features - features.mean(0)
    spread = max(float(np.sqrt((centred**2).sum(1).mean())), np.finfo(float).tiny)
    scaled = centred / spread
    variety = float(np.mean([1 / _energy(features[cases == i], 8 * voxels, seed) for i in range(cases.max() + 1)]))

    def score(labels: Any) -> float:
        indices, k = as_classes(labels, n)
        rng = np.random.default_rng(seed)
        distances = []
        for c in range(k):
            rows = [np.flatnonzero((indices == c) & (cases == i)) for i in range(cases.max() + 1)]
            rows = [r for r in rows if len(r)]
            size = min([voxels, *(len(r) for r in rows)])
            samples = [scaled[rng.choice(r, size, replace=False)] for r in rows]
            pairs = [wasserstein2(a, b) for a, b in combinations(samples, 2)]
            if pairs:
                distances.append(np.mean(pairs))
        if not distances:
            raise InputError(
                "no class stands in two cases: consistency between cases cannot be measured",
                hint="give more cases of each class",
            )
        return float(np.log(variety) - np.mean(distances))

    return score


def _energy(features: np.ndarray, most: int, seed: int) -> float:
    """Mean of 1/|u - v| over pairs of directions u, v; coinciding directions count as a distance of 1e-6."""
    if len(features) > most:
        features = features[np.random.default_rng(seed).choice(len(features), most, replace=False)]
    if len(features) < 2:
        raise InputError("a case with a single voxel has no variety of features", hint="sample more voxels per case")
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return float((1 / np.maximum(pdist(features / np.maximum(norms, np.finfo(float).tiny)), 1e-6)).mean())
