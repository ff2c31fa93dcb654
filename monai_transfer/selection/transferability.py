"""Transferability scores: is this source's view of the target's labelled cases any good, without training a network?

``logme(features, labels)`` and its siblings take N x D features and N labels (``leep`` and ``nce`` the source's
N x Z class probabilities; ``ccfv`` voxels and their cases) and return a float, higher is better. None of them ranks
medical sources reliably (arXiv:2308.07444): read each beside ``permutation_null`` and ``linear_probe``.
"""

from __future__ import annotations

from monai_transfer.selection.ccfv import ccfv
from monai_transfer.selection.gbc import gbc
from monai_transfer.selection.h_score import h_score
from monai_transfer.selection.leep import leep, nce
from monai_transfer.selection.linear_probe import LinearProbe, linear_probe
from monai_transfer.selection.logme import logme
from monai_transfer.selection.permutation import PermutationNull, permutation_null
from monai_transfer.selection.transrate import transrate

__all__ = [
    "CAVEAT",
    "LinearProbe",
    "PermutationNull",
    "ccfv",
    "gbc",
    "h_score",
    "leep",
    "linear_probe",
    "logme",
    "nce",
    "permutation_null",
    "transrate",
]

CAVEAT = (
    "No transferability score ranks medical sources reliably (arXiv:2308.07444). A score without a small p value says "
    "nothing; a fine-tuning run with several seeds is the only proof."
)
