"""Validators: choosing a checkpoint or a hyper-parameter by target predictions without labels; higher is always better.

``entropy, information_maximisation, snd, bnm, class_clustering`` take B x C probabilities of images or B x C x spatial
ones of volumes, or a ``PredictionSummary`` fed volume by volume; ``dev`` and ``ist`` also want source features.
``UnlabelledValidator`` is any of the first five as an ignite metric. None is reliable alone: look at ``collapse`` and,
where labels exist, at ``oracle_gap``.
"""

from __future__ import annotations

from monai_transfer.selection.validators.clusters import class_clustering
from monai_transfer.selection.validators.collapse import Collapse, collapse
from monai_transfer.selection.validators.domain_information import ist
from monai_transfer.selection.validators.entropies import entropy, information_maximisation
from monai_transfer.selection.validators.importance import dev, importance_weights
from monai_transfer.selection.validators.metric import UnlabelledValidator
from monai_transfer.selection.validators.neighbourhood import snd
from monai_transfer.selection.validators.nuclear_norm import bnm
from monai_transfer.selection.validators.oracle import OracleGap, oracle_gap
from monai_transfer.selection.validators.summary import PredictionSummary

__all__ = [
    "Collapse",
    "OracleGap",
    "PredictionSummary",
    "UnlabelledValidator",
    "bnm",
    "class_clustering",
    "collapse",
    "dev",
    "entropy",
    "importance_weights",
    "information_maximisation",
    "ist",
    "oracle_gap",
    "snd",
]
