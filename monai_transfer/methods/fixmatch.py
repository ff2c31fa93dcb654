"""FixMatch: a sure answer on the plain view is the label of the strongly augmented view.

    L = weight * mean over all cases (voxels) of 1[max p(x) >= tau] * CE(argmax p(x), p(strong x))

Paper: Sohn et al., FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence, NeurIPS 2020,
arXiv:2001.07685

tau is 0.95, and the mean runs over all cases, selected or not, as in the paper, so the term starts small and grows with
certainty. The plain view only gives labels, so its pass builds no graph. ``strong`` is the batch's strongly augmented
view; for a segmentation its augmentation must be photometric (contrast, noise, blur, bias field), or the voxels no
longer match. A batch without one gives the plain image in its place: then this is plain pseudo-labelling, so use one.
Rare classes seldom reach a common threshold: ``pseudo_label`` has one for each class. Normalisation statistics: plain
and strong view are two more forward passes in training mode, each normalised by its own batch; the running averages
blend all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.outputs import log_probabilities, probabilities
from monai_transfer.tasks.for_methods import CLASSES, PRESENCES

__all__ = ["Fixmatch", "fixmatch_loss"]


def fixmatch_loss(weak: Tensor, strong: Tensor, threshold: float = 0.95) -> tuple[Tensor, Tensor]:
    """The loss of ``strong`` against the sure answers of ``weak``, both B x C x spatial logits, and their share.

    Args:
        weak: logits of the weak view, B x C x spatial; they teach and get no gradient.
        strong: logits of the strong view, of the same shape.
        threshold: probability from which an answer teaches.

    Only the first case is predicted surely enough on its weak view to teach the strong one:

    >>> import torch
    >>> from monai_transfer.methods.fixmatch import fixmatch_loss
    >>> weak, strong = torch.tensor([[9.0, -9.0], [0.1, 0.0]]), torch.zeros(2, 2)
    >>> loss, share = fixmatch_loss(weak, strong)
    >>> round(loss.item(), 4), share.item()  # ln 2 of the first case, 0 of the second; half of the cases teach
    (0.3466, 0.5)
    """
    confidence, label = probabilities(weak.detach()).max(1)
    chosen = confidence >= threshold
    picked = log_probabilities(strong).gather(1, label.unsqueeze(1)).squeeze(1)
    return -(picked * chosen).mean(), chosen.float().mean()


class Fixmatch(Method):
    """FixMatch term on the unlabelled target.

    Args:
        threshold: the confidence from which an answer is a label.
        weight: factor of the term.

    >>> import torch
    >>> from monai_transfer.methods.base import Fields
    >>> from monai_transfer.methods.fixmatch import Fixmatch
    >>> fields = Fields(target_logits=torch.tensor([[9.0, -9.0]]), target_strong_logits=torch.zeros(1, 2))
    >>> Fixmatch()(fields, progress=0.5)  # cross-entropy of a coin: ln 2
    tensor(0.6931)
    """

    needs = frozenset({"target_logits", "target_strong_logits"})
    constant = frozenset({"target"})
    tasks = (*CLASSES, *PRESENCES)
    experimental = False  # docs/truth_table.md: nuclei, though from .01 to .15 only
    norm_statistics = "separate: source, plain and strong target view each by its own batch; averages blend all three"

    def __init__(self, threshold: float = 0.95, weight: float = 1.0) -> None:
        super().__init__()
        self.threshold, self.weight = threshold, weight
        self._selected = torch.tensor(float("nan"))

    def forward(self, fields: Fields, progress: float) -> Tensor:
        weak, strong = self.as_cases(fields.target_logits), self.as_cases(fields.target_strong_logits)
        loss, self._selected = fixmatch_loss(weak, strong, self.threshold)
        return self.weight * loss

    def log(self) -> dict[str, Tensor]:
        """``selected``: share of the last batch's cases or voxels that were sure enough."""
        return {"selected": self._selected}
