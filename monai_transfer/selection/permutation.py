"""Permutation null: the scores that the same features get for labels that mean nothing.

A transferability score has no scale of its own, and several are high for random labels when cases are few. So every
score is read beside this: the share of permuted labellings that reach it, p = (1 + #{null >= score}) / (1 + n).

Paper: Phipson and Smyth, Permutation P-values Should Never Be Zero, Stat. Appl. Genet. Mol. Biol. 2010,
arXiv:1603.05766
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_transfer.arrays import as_array
from monai_transfer.errors import InputError
from monai_transfer.selection.ccfv import ccfv, prepare_ccfv
from monai_transfer.selection.gbc import gbc, prepare_gbc
from monai_transfer.selection.h_score import h_score, prepare_h_score
from monai_transfer.selection.inputs import as_labels
from monai_transfer.selection.leep import leep, nce, prepare_leep, prepare_nce
from monai_transfer.selection.logme import logme, prepare_logme
from monai_transfer.selection.transrate import prepare_transrate, transrate

__all__ = ["PermutationNull", "permutation_null", "permute"]

# What depends on the features alone is computed once, not once per permutation; any other callable works, slower.
_PREPARED: dict[Any, Callable[..., Callable[[Any], float]]] = {
    ccfv: prepare_ccfv,
    gbc: prepare_gbc,
    h_score: prepare_h_score,
    leep: prepare_leep,
    logme: prepare_logme,
    nce: prepare_nce,
    transrate: prepare_transrate,
}


@dataclass(frozen=True)
class PermutationNull:
    """A score beside its null distribution.

    Args:
        score: of the labels as they are.
        p_value: share of the permutations that score as high.
        quantiles: of the null, by probability (0.05, 0.5, 0.95, 0.99).
        n: number of permutations.

    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 20)
    >>> features = rng.standard_normal((40, 3)) + 3 * labels[:, None]
    >>> null = permutation_null(h_score, features, labels, n=99)
    >>> null.p_value, null.z > 3  # no permuted labelling reaches the score
    (0.01, True)
    """

    score: float
    p_value: float
    quantiles: dict[float, float]
    n: int

    @property
    def z(self) -> float:
        """How far the score stands above the null's median, in widths of its 5-95 % range (which spans 3.29 sigma)."""
        width = (self.quantiles[0.95] - self.quantiles[0.05]) / 3.29
        return (self.score - self.quantiles[0.5]) / width if width > 0 else 0.0


def permutation_null(
    score: Callable[..., float],
    features: Any,
    labels: Any,
    *,
    n: int = 200,
    seed: int = 0,
    groups: Any = None,
    within: bool = False,
    **arguments: Any,
) -> PermutationNull:
    """Score, p value and null quantiles of ``score(features, labels, **arguments)``; higher must be better.

    Args:
        features: N x D features, or N x Z source probabilities for ``leep`` and ``nce``.
        labels: N class labels or quantities.
        n: number of permutations; the smallest possible p value is 1/(n + 1).
        groups: N names (patients) of rows that belong together. Without it, rows are taken as independent.
        within: exchange labels only inside a group (regions of one case), rather than whole groups against each other.
        arguments: passed on to ``score``; ``ccfv`` takes its cases from ``groups``.

    Raises:
        InputError: the score's own complaints, ``n`` below 1, ``within`` without groups, or groups that cannot be
            exchanged.

    >>> import numpy as np
    >>> from monai_transfer.selection.logme import logme
    >>> from monai_transfer.selection.permutation import permutation_null
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 20)
    >>> useful = rng.standard_normal((40, 4)) + 2 * labels[:, None]
    >>> permutation_null(logme, useful, labels, n=99).p_value  # the least that 99 permutations can give
    0.01
    """
    if n < 1:
        raise InputError(f"a permutation null needs at least one permutation, not {n}", hint="such as n=200")
    if within and groups is None:
        raise InputError("within=True needs groups", hint="give groups=, the patient of each row")
    labels = as_array(labels)
    if score is ccfv:
        arguments = {"groups": groups, **arguments}
    prepare = _PREPARED.get(score)
    if prepare is not None:
        of_labels = prepare(features, **arguments)
    else:
        of_labels = lambda given: float(score(features, given, **arguments))  # noqa: E731
    observed = of_labels(labels)
    rng = np.random.default_rng(seed)
    null = np.array([of_labels(permute(labels, rng, groups=groups, within=within)) for _ in range(n)])
    tolerance = 1e-9 * max(1.0, abs(observed))  # equal labellings must count as reaching it, whatever the rounding
    p_value = (1 + int((null >= observed - tolerance).sum())) / (1 + n)
    levels = (0.05, 0.5, 0.95, 0.99)
    return PermutationNull(observed, p_value, dict(zip(levels, np.quantile(null, levels).tolist(), strict=True)), n)


def permute(labels: np.ndarray, rng: np.random.Generator, *, groups: Any = None, within: bool = False) -> np.ndarray:
    """One permutation of ``labels`` that keeps what belongs together together.

    With ``groups``: where each group has a single label, groups exchange their labels; where some are mixed, groups of
    equal size exchange their label vectors, which are then shuffled inside each group.

    Args:
        labels: N.
        rng: where the draw comes from.
        groups: N; None: each row is one.
        within: shuffle inside each group only.

    Both slices of a patient keep one label:

    >>> labels, patients = np.array([0, 0, 1, 1, 1, 1]), np.array([1, 1, 2, 2, 3, 3])
    >>> found = permute(labels, np.random.default_rng(0), groups=patients)
    >>> bool((found[::2] == found[1::2]).all()), sorted(found.tolist())
    (True, [0, 0, 1, 1, 1, 1])
    """
    if groups is None:
        return labels[rng.permutation(len(labels))]
    members = np.unique(as_labels(groups, len(labels)), return_inverse=True)[1]
    rows = [np.flatnonzero(members == g) for g in range(members.max() + 1)]
    permuted = labels.copy()
    if within:
        for r in rows:
            permuted[r] = labels[rng.permutation(r)]
        return permuted
    if all((labels[r] == labels[r[0]]).all() for r in rows):
        for r, other in zip(rows, rng.permutation(len(rows)), strict=True):
            permuted[r] = labels[rows[other][0]]
        return permuted
    sizes = np.array([len(r) for r in rows])
    for size in np.unique(sizes):
        same = np.flatnonzero(sizes == size)
        for to, given in zip(same, rng.permutation(same), strict=True):
            permuted[rows[to]] = rng.permutation(labels[rows[given]])
    return permuted
