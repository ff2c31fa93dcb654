"""Label spreading: labels flow from source to target cases along a graph of near features, and teach the network.

    F = (1 - alpha) (I - alpha S)^-1 Y,   S = D^-1/2 W D^-1/2   (scikit-learn's LabelSpreading)
    L = weight * sum_t w_t CE(F_t, p_t) / number of target cases,   w_t = 1 - H(F_t) / log C

Paper: Zhou, Bousquet, Lal, Weston and Schoelkopf, Learning with Local and Global Consistency, NIPS 2003; on deep
features: Iscen, Tolias, Avrithis and Chum, Label Propagation for Deep Semi-supervised Learning, CVPR 2019,
arXiv:1904.04717

The graph holds a memory of the latest ``memory`` source and target features (part of the checkpoint) and the present
batches, so that it is more than one batch wide; memories are from slightly older weights. Features are standardised and
the graph links nearest neighbours: a Gaussian kernel of fixed width (scikit-learn's default, gamma 20) on raw deep
features collapses to one class. The graph is solved on the CPU: about 0.1 s of one core in each step with the default
memory, 0.16 s with four times as much, whatever the network. Labels are constants for the gradient, weighted by their
certainty as in the second paper. Before the features separate the source's classes the labels are noise: use ``start``,
or a pretrained network. Classification only: a graph over voxels does not fit. Normalisation statistics: the target
batch is a second forward pass, so each domain is normalised by its own batch and both enter the running averages.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading as _SklearnSpreading
from torch import Tensor, nn

from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.outputs import label_indices, log_probabilities
from monai_transfer.tasks.for_methods import IMAGE_CLASSES

__all__ = ["LabelSpreading", "spread_labels"]

UNLABELLED = -1


def spread_labels(
    features: np.ndarray, labels: np.ndarray, classes: int, neighbours: int = 7, alpha: float = 0.2
) -> np.ndarray:
    """Class distributions of all cases from those that are labelled.

    Args:
        features: N x F; standardised here.
        labels: N class indices, -1 where unknown; at least one known.
        classes: C.
        neighbours: of the graph, at most N - 1.
        alpha: share that a case takes from its neighbours in each step, in (0, 1).

    Returns:
        N x C; rows of cases that nothing reaches are uniform.

    Six points in two groups, of which one each is labelled (-1 is not):

    >>> import numpy as np
    >>> from monai_transfer.methods.label_spreading import spread_labels
    >>> features = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    >>> spread_labels(features, np.array([0, -1, -1, 1, -1, -1]), classes=2, neighbours=2).argmax(1)
    array([0, 0, 0, 1, 1, 1])
    """
    model = _SklearnSpreading(kernel="knn", n_neighbors=min(neighbours, len(features) - 1), alpha=alpha, max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(StandardScaler().fit_transform(features), labels)
    spread = np.zeros((len(features), classes))
    spread[:, model.classes_.astype(int)] = np.nan_to_num(model.label_distributions_)
    mass = spread.sum(1, keepdims=True)
    return np.where(mass > 0, spread / np.where(mass > 0, mass, 1), 1 / classes)


class LabelSpreading(Method):
    """Soft cross-entropy of target predictions against labels spread from the source.

    Args:
        neighbours: of the graph.
        alpha: as in ``spread_labels``.
        memory: how many earlier features of each domain the graph holds.
        weight: factor of the term.
        start: share of the run before which the term is zero.

    >>> from monai_transfer.methods.label_spreading import LabelSpreading
    >>> LabelSpreading().neighbours, LabelSpreading.tasks  # seven neighbours in a memory of deep features
    (7, ('classification',))
    """

    needs = frozenset({"source_features", "target_features", "source_label", "source_logits", "target_logits"})
    tasks = IMAGE_CLASSES
    limits = {
        "segmentation": "a graph over voxels does not fit",
        "regression": "the labels that it spreads are classes",
    }

    def __init__(
        self, neighbours: int = 7, alpha: float = 0.2, memory: int = 256, weight: float = 1.0, start: float = 0.1
    ) -> None:
        super().__init__()
        self.neighbours, self.alpha, self.memory = neighbours, alpha, memory
        self.weight, self.start = weight, start
        self.features: Tensor
        self.labels: Tensor
        self.filled: Tensor
        self.register_buffer("features", torch.empty(0))  # 2 domains x memory x F
        self.register_buffer("labels", torch.empty(0, dtype=torch.long))  # of the source's memory
        self.register_buffer("filled", torch.zeros(2, dtype=torch.long))  # how many were ever written
        self._log: dict[str, Tensor] = {}

    def setup(self, network: nn.Module, batch: Fields) -> None:
        features = batch.source_features
        self.features = torch.zeros(2, self.memory, features.flatten(1).shape[1], device=features.device)
        self.labels = torch.zeros(self.memory, dtype=torch.long, device=features.device)

    def _remember(self, domain: int, features: Tensor, labels: Tensor | None = None) -> None:
        places = (int(self.filled[domain]) + torch.arange(len(features), device=features.device)) % self.memory
        self.features[domain, places] = features
        if labels is not None:
            self.labels[places] = labels
        self.filled[domain] += len(features)

    def forward(self, fields: Fields, progress: float) -> Tensor:
        logs = log_probabilities(fields.target_logits)
        classes, device = logs.shape[1], logs.device
        source, target = (fields[f"{d}_features"].detach().flatten(1).float() for d in ("source", "target"))
        two = fields.source_logits if fields.source_logits.shape[1] > 1 else fields.source_logits.expand(-1, 2)
        known = label_indices(fields.source_label, two)
        held = [min(int(n), self.memory) for n in self.filled]
        if progress < self.start:
            term = 0.0 * logs.sum()
        else:
            everything = torch.cat([source, target, self.features[0, : held[0]], self.features[1, : held[1]]])
            blank = torch.full((len(target),), UNLABELLED, device=device)
            labels = torch.cat([known, blank, self.labels[: held[0]], blank.new_full((held[1],), UNLABELLED)])
            spread = spread_labels(
                everything.cpu().numpy(), labels.cpu().numpy(), classes, self.neighbours, self.alpha
            )[len(source) : len(source) + len(target)]
            taught = torch.as_tensor(spread, dtype=logs.dtype, device=device)
            certainty = 1 + (taught * taught.clamp_min(1e-12).log()).sum(1) / math.log(classes)
            self._log = {"certainty": certainty.mean()}
            term = -self.weight * (certainty * (taught * logs).sum(1)).mean()
        self._remember(0, source[: self.memory], known[: self.memory])
        self._remember(1, target[: self.memory])
        return term

    def log(self) -> dict[str, Tensor]:
        """``certainty``: mean weight of the last target batch's labels, in [0, 1]."""
        return dict(self._log)
