"""Labels out of a network's own answers: the surest share of each class, so that a rare class is selected as well.

    y = argmax_c p_c / tau_c where that is > 1, else none;   tau_c: the p that the surest share q of class c reaches

Paper: Zou, Yu, Vijaya Kumar and Wang, Unsupervised Domain Adaptation for Semantic Segmentation via Class-Balanced
Self-Training, ECCV 2018, arXiv:1810.07911

The paper finds tau over the whole target set between rounds of training; here it is a moving average over batches.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    *("IGNORE", "class_thresholds", "labelled_cross_entropy", "move_thresholds", "select_labels", "sure_labels"),
    "unset_thresholds",
]

IGNORE = -1
"""What stands where there is no label."""


@torch.no_grad()
def class_thresholds(probabilities: Tensor, portion: float) -> Tensor:
    """For each class the confidence that its surest ``portion`` reaches: C values; NaN where a class is not predicted.

    Args:
        probabilities: B x C x spatial.
        portion: share, in (0, 1], of the cases or voxels that are predicted as this class.

    >>> import torch
    >>> from monai_transfer.networks.pseudo_labels import class_thresholds
    >>> sure = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    >>> class_thresholds(sure, portion=0.5)  # of each class, the surer half passes
    tensor([0.9000, 0.8000])
    """
    confidence, predicted = probabilities.max(1)
    thresholds = torch.full((probabilities.shape[1],), float("nan"), dtype=confidence.dtype, device=confidence.device)
    for c in range(probabilities.shape[1]):
        of_class = confidence[predicted == c]
        if len(of_class):
            thresholds[c] = of_class.topk(max(round(portion * len(of_class)), 1)).values[-1]
    return thresholds


@torch.no_grad()
def move_thresholds(kept: Tensor, probabilities: Tensor, portion: float, momentum: float) -> Tensor:
    """Move the averages ``kept`` (C, in place; NaN: never predicted yet) and give the thresholds to select by.

    Args:
        kept: C values; NaN where a class has not been predicted yet.
        probabilities: B x C x spatial, of this batch.
        portion: as in ``class_thresholds``.
        momentum: share of ``kept`` that stays.

    Returns:
        C thresholds; 1, which nothing exceeds, for a class that was never predicted.

    >>> kept = torch.full((2,), float("nan"))
    >>> batch = torch.tensor([[0.9, 0.1], [0.7, 0.3]])  # the second class is never predicted
    >>> move_thresholds(kept, batch, portion=1.0, momentum=0.9).tolist()[1]
    1.0
    """
    now = class_thresholds(probabilities, portion).to(kept.dtype)
    moved = momentum * kept + (1 - momentum) * now
    first, absent = kept.isnan(), now.isnan()
    kept.copy_(torch.where(absent, kept, torch.where(first, now, moved)))
    return kept.nan_to_num(nan=1.0).clamp_min(1e-6).to(probabilities.dtype)


@torch.no_grad()
def select_labels(probabilities: Tensor, thresholds: Tensor) -> Tensor:
    """argmax_c p_c / tau_c where it reaches 1, else ``IGNORE``: B x spatial.

    Args:
        probabilities: B x C x spatial.
        thresholds: tau, one of each class.

    >>> import torch
    >>> from monai_transfer.networks.pseudo_labels import select_labels
    >>> select_labels(torch.tensor([[0.9, 0.1], [0.55, 0.45]]), thresholds=torch.tensor([0.8, 0.8]))
    tensor([ 0, -1])
    """
    ratio = probabilities / thresholds.view(1, -1, *([1] * (probabilities.ndim - 2)))
    best, label = ratio.max(1)
    return torch.where(best >= 1, label, torch.full_like(label, IGNORE))


def sure_labels(kept: Tensor, probabilities: Tensor, portion: float, momentum: float) -> Tensor:
    """Move the averages ``kept`` and label by them: ``move_thresholds``, then ``select_labels``.

    Args:
        kept: C values (in place); or K x 2, where outputs do not exclude each other, of absent and present for each.
        probabilities: B x C x spatial; or (B K) x 2 x spatial, the K outputs of a case following one another.
        portion, momentum: as in ``move_thresholds``.

    Returns:
        B x spatial, or (B K) x spatial.

    Of the cases with a rare finding the surer half is selected as well:

    >>> import torch
    >>> from monai_transfer.networks.pseudo_labels import sure_labels
    >>> present = torch.tensor([[0.9, 0.4], [0.7, 0.3], [0.2, 0.6], [0.1, 0.1]]).flatten()  # 4 cases, 2 findings
    >>> kept = torch.full((2, 2), float("nan"))
    >>> sure_labels(kept, torch.stack([1 - present, present], 1), portion=0.5, momentum=0.9).view(4, 2).tolist()
    [[1, -1], [-1, 0], [-1, 1], [0, 0]]
    """
    if kept.ndim == 1:
        return select_labels(probabilities, move_thresholds(kept, probabilities, portion, momentum))
    parts = [sure_labels(one, probabilities[k :: len(kept)], portion, momentum) for k, one in enumerate(kept)]
    return torch.stack(parts, 1).flatten(0, 1)


def unset_thresholds(logits: Tensor, exclusive: bool) -> Tensor:
    """What ``sure_labels`` starts from for B x C x spatial logits: NaN, C of them, or C x 2.

    Args:
        logits: B x C x spatial.
        exclusive: the outputs are classes that exclude each other.

    >>> [tuple(unset_thresholds(torch.zeros(4, 3), exclusive).shape) for exclusive in (True, False)]
    [(3,), (3, 2)]
    """
    size = (max(logits.shape[1], 2),) if exclusive else (logits.shape[1], 2)
    return torch.full(size, float("nan"), device=logits.device)


def labelled_cross_entropy(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean of -log p_y over the cases or voxels that have a label; 0, with a gradient of 0, where none has.

    Args:
        log_probabilities: B x C x spatial.
        labels: B x spatial; ``IGNORE`` where there is none.

    >>> import torch
    >>> from monai_transfer.networks.pseudo_labels import IGNORE, labelled_cross_entropy
    >>> logs = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    >>> round(labelled_cross_entropy(logs, torch.tensor([0, IGNORE])).item(), 4)  # ln 2: the second does not count
    0.6931
    """
    chosen = labels != IGNORE
    picked = log_probabilities.gather(1, labels.clamp_min(0).unsqueeze(1)).squeeze(1)
    return -(picked * chosen).sum() / chosen.sum().clamp_min(1)
