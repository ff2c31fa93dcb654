"""LEEP and NCE: how well the source model's own classes predict the target's, without training anything.

    NCE  = -H(Y | Z)                                          Z the source class that the model assigns
    LEEP = 1/N sum_i log sum_z P(y_i | z) p_z(x_i)            P(y | z) = sum_i p_z(x_i) [y_i = y] / sum_i p_z(x_i)

Both are at most 0, higher is better; both are measured on the cases that the empirical P(y | z) was made from, so few
cases and many source classes flatter them: read them beside their permutation null.

Paper: Nguyen et al., LEEP: A New Measure to Evaluate Transferability of Learned Representations, ICML 2020,
arXiv:2002.12462; Tran, Nguyen, Hassner, Transferability and Hardness of Supervised Classification Tasks, ICCV 2019,
arXiv:1908.08142
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from monai_transfer.arrays import as_array
from monai_transfer.selection.inputs import as_classes, as_labels, as_probabilities

__all__ = ["leep", "nce", "prepare_leep", "prepare_nce"]


def leep(source_probabilities: Any, labels: Any) -> float:
    """LEEP of the source model's N x Z class probabilities on the target's images, for N target class labels.

    Args:
        source_probabilities: N x Z.
        labels: N class labels.

    Raises:
        InputError: rows that are no probabilities, shapes that do not fit, or only one target class.

    >>> import numpy as np
    >>> from monai_transfer.selection.leep import leep
    >>> labels = np.array([0, 0, 1, 1])
    >>> telling, blind = np.eye(2)[labels], np.full((4, 2), 0.5)
    >>> round(leep(telling, labels), 4), round(leep(blind, labels), 4)  # 0 is the best; a coin has -ln 2
    (0.0, -0.6931)
    """
    return prepare_leep(source_probabilities)(labels)


def prepare_leep(source_probabilities: Any) -> Callable[[Any], float]:
    """The same as a function of the labels alone.

    Args:
        source_probabilities: N x Z.

    >>> probabilities, labels = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]), np.array([0, 1, 0])
    >>> prepare_leep(probabilities)(labels) == leep(probabilities, labels)
    True
    """
    probabilities = as_probabilities(source_probabilities)
    n = len(probabilities)

    def score(labels: Any) -> float:
        indices, k = as_classes(labels, n)
        joint = np.eye(k)[indices].T @ probabilities / n  # K x Z
        marginal = joint.sum(0)
        conditional = np.divide(joint, marginal, out=np.zeros_like(joint), where=marginal > 0)
        return float(np.log((probabilities * conditional[indices]).sum(1)).mean())

    return score


def nce(source_labels: Any, labels: Any) -> float:
    """Negative conditional entropy (nats) of N target labels given the source model's classes.

    Args:
        source_labels: N source classes, or N x Z source probabilities, of which the largest is taken.

    Raises:
        InputError: shapes that do not fit, or only one target class.

    >>> from monai_transfer.selection.leep import nce
    >>> round(nce([0, 0, 1, 1], [0, 0, 1, 1]), 4), round(nce([0, 1, 0, 1], [0, 0, 1, 1]), 4)
    (0.0, -0.6931)
    """
    return prepare_nce(source_labels)(labels)


def prepare_nce(source_labels: Any) -> Callable[[Any], float]:
    """The same as a function of the labels alone.

    Args:
        source_labels: N classes of the source, or N x Z probabilities of them.

    What the source calls 0 and 1, the target calls the other way round, which tells as much:

    >>> source = np.array([0, 0, 1, 1])
    >>> round(prepare_nce(source)(1 - source), 4), round(prepare_nce(source)(np.array([0, 1, 0, 1])), 4)
    (0.0, -0.6931)
    """
    given = as_array(source_labels)
    if given.ndim == 2 and given.shape[1] > 1:
        given = as_probabilities(given).argmax(1)
    given = as_labels(given, len(given))
    _, sources = np.unique(given, return_inverse=True)
    n = len(sources)

    def score(labels: Any) -> float:
        indices, k = as_classes(labels, n)
        joint = np.zeros((k, sources.max() + 1))
        np.add.at(joint, (indices, sources), 1 / n)
        conditional = np.divide(joint, joint.sum(0), out=np.ones_like(joint), where=joint > 0)
        return float((joint * np.log(conditional)).sum())

    return score
