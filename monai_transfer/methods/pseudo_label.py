"""Pseudo-labels with class-balanced thresholds: the network's surest answers on the target, class by class, as labels.

    y = argmax_c p_c / tau_c where that is > 1, else none;   tau_c: the p that the surest share q of class c reaches
    L = weight * mean of -log p_y over the cases (voxels) that have a label;   q grows from 0.2 to 0.5 with progress

Paper: Zou, Yu, Vijaya Kumar and Wang, Unsupervised Domain Adaptation for Semantic Segmentation via Class-Balanced
Self-Training, ECCV 2018, arXiv:1810.07911; the plain form: Lee, Pseudo-Label, ICML Workshops 2013

One threshold for all classes never selects a rare structure or an unfamiliar class; one per class selects the same
share of each. The paper computes tau over the whole target set between rounds of training; here it is a moving average
over batches (``momentum``), kept in the checkpoint, so that no second pass is needed. The labels are constants for the
gradient. Errors feed on themselves: start from a network that has learnt on the source, and look at the logged share
and class balance. Normalisation statistics: the target batch is a second forward pass in training mode, so each domain
is normalised by its own batch and both enter the running averages.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.outputs import log_probabilities
from monai_transfer.networks.pseudo_labels import (
    IGNORE,
    class_thresholds,
    labelled_cross_entropy,
    select_labels,
    sure_labels,
    unset_thresholds,
)
from monai_transfer.tasks.for_methods import CLASSES, PRESENCES

__all__ = ["PseudoLabel", "class_thresholds", "select_labels"]


class PseudoLabel(Method):
    """Cross-entropy of the target against its own class-balanced pseudo-labels.

    Args:
        portion: share of each class that is selected at the start and at the end of the run, or all along.
        momentum: of the moving average of the thresholds.
        weight: factor of the term.
        start: share of the run before which the term is zero, for a network that first has to learn.

    Raises:
        InputError: ``portion`` is not one or two numbers in (0, 1].

    >>> import torch
    >>> from monai_transfer.methods.base import Fields
    >>> from monai_transfer.methods.pseudo_label import PseudoLabel
    >>> _ = torch.manual_seed(0)
    >>> method, logits = PseudoLabel(portion=1.0), torch.tensor([[4.0, 0.0], [0.0, 4.0]])
    >>> method.setup(torch.nn.Linear(2, 2), Fields(target_logits=logits))
    >>> round(method(Fields(target_logits=logits), progress=0.5).item(), 3)  # -log softmax of the surer class
    0.018
    """

    needs = frozenset({"target_logits"})
    tasks = (*CLASSES, *PRESENCES)

    def __init__(
        self,
        portion: float | tuple[float, float] = (0.2, 0.5),
        momentum: float = 0.9,
        weight: float = 1.0,
        start: float = 0.0,
    ) -> None:
        super().__init__()
        shares = (portion, portion) if isinstance(portion, (int, float)) else tuple(portion)
        if len(shares) != 2 or not all(0 < share <= 1 for share in shares):
            raise InputError(
                f"portion must be two numbers in (0, 1], got {shares}",
                hint="such as (0.2, 0.5): the shares at the start and at the end of the run",
            )
        self.portion, self.momentum, self.weight, self.start = shares, momentum, weight, start
        self.thresholds: Tensor
        self.register_buffer("thresholds", torch.empty(0))
        self._log: dict[str, Tensor] = {}

    def setup(self, network: nn.Module, batch: Fields) -> None:
        self.thresholds = unset_thresholds(batch.target_logits, self.exclusive)

    def forward(self, fields: Fields, progress: float) -> Tensor:
        logs = log_probabilities(self.as_cases(fields.target_logits))
        if progress < self.start:
            return 0.0 * logs.sum()
        predicted = logs.detach().exp()
        done = (progress - self.start) / max(1.0 - self.start, 1e-6)
        portion = self.portion[0] + (self.portion[1] - self.portion[0]) * done
        labels = sure_labels(self.thresholds, predicted, portion, self.momentum)
        self._log = {"selected": (labels != IGNORE).float().mean()}
        return self.weight * labelled_cross_entropy(logs, labels)

    def log(self) -> dict[str, Tensor]:
        """``selected``: share of the last batch's cases or voxels that had a label."""
        return dict(self._log)
