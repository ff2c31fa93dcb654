"""How well the training batches themselves are predicted: sums on the device for an epoch, read off at its end.

No copy and no synchronisation within the epoch. The Dice is that of the epoch's voxels together, not the mean over
cases; it shows whether training learns, and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "TRAINING_ACCURACY",
    "TRAINING_DICE",
    "TRAINING_ERROR",
    "TRAINING_FINDINGS",
    "TRAINING_REGIONS",
    "TrainingScore",
]


@dataclass(frozen=True)
class TrainingScore:
    """A score of training batches.

    Args:
        name: its column in ``metrics.csv``.
        sums: from predictions (logits B x C x spatial or B x C, one channel: a binary logit; or values) and labels
            (class indices B x 1 x spatial or B; or values) to a tensor of sums, to be added over batches and processes.
        value: from the sums, as doubles on the CPU, to the score.
        in_units: it is in the label's unit, so the scale of normalised labels multiplies it.

    >>> import torch
    >>> error = TrainingScore(
    ...     "training_error",
    ...     sums=lambda pred, label: torch.stack([(pred - label).abs().sum(), torch.tensor(float(len(pred)))]),
    ...     value=lambda sums: float(sums[0] / sums[1]),
    ... )
    >>> error.value(error.sums(torch.tensor([[1.0], [4.0]]), torch.tensor([[2.0], [2.0]])))  # |-1| and |2|
    1.5
    """

    name: str
    sums: Callable[[Tensor, Tensor], Tensor]
    value: Callable[[Tensor], float]
    in_units: bool = False


def _absolute_errors(prediction: Tensor, label: Tensor) -> Tensor:
    import torch

    error = (prediction.flatten() - label.flatten()).abs()
    return torch.stack([error.sum(), torch.full_like(error[0], error.numel())])


def _confusion(prediction: Tensor, label: Tensor) -> Tensor:
    """C x C: label along the rows, prediction along the columns. An ignored label, such as -1, counts for nothing."""
    import torch

    if prediction.shape[1] == 1:
        prediction = torch.cat([torch.zeros_like(prediction), prediction], 1)
    classes = prediction.shape[1]
    if label.ndim == prediction.ndim:
        # else one channel for each class, and a voxel without a mark is of no known class
        label = label[:, 0] if label.shape[1] == 1 else torch.where((label == 1).any(1), label.argmax(1), -1)
    rows, cells = classes + 2, (classes + 2) * classes  # a row above and one below for labels that are no class
    whole = torch.uint8 if cells <= 256 else torch.int64  # bytes are counted several times faster
    label = label.clamp(-1, classes) if label.dtype.is_signed else label.to(torch.uint8).clamp(max=classes)
    pairs = label.add(1).to(whole).mul(classes).add_(_highest(prediction).to(whole)).flatten()
    if pairs.is_cuda:  # bincount would wait for the device
        ones = torch.ones((), dtype=torch.int64, device=pairs.device).expand(len(pairs))
        counts = torch.zeros(cells, dtype=torch.int64, device=pairs.device).scatter_add_(0, pairs.long(), ones)
    else:
        counts = torch.bincount(pairs, minlength=cells)
    return counts.reshape(rows, classes)[1:-1]


def _right_findings(prediction: Tensor, label: Tensor) -> Tensor:
    """Known findings that are right at a threshold of one half, and known findings."""
    import torch

    known = (label == 0) | (label == 1)
    right = ((prediction > 0) == (label == 1)) & known
    return torch.stack([right.sum(), known.sum()])


def _highest(scores: Tensor) -> Tensor:
    """``scores.argmax(1)``, which is some fifty times slower on a CPU because the channels lie far apart."""
    import torch

    if scores.is_cuda or not 2 <= scores.shape[1] <= 16:
        return scores.argmax(1)
    best = scores[:, 0]
    found = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for number in range(1, scores.shape[1]):
        score = scores[:, number]
        found = torch.maximum(found, (score > best).view(torch.uint8).mul_(number))
        best = torch.maximum(best, score)
    return found


def _overlaps(prediction: Tensor, label: Tensor) -> Tensor:
    """Of each output the known voxels that are right inside, and those that are inside by either."""
    import torch

    known = label >= 0
    said, true = (prediction > 0) & known, label == 1
    axes = [0, *range(2, label.ndim)]
    return torch.stack([2 * (said & true).sum(axes), said.sum(axes) + true.sum(axes)])


def _mean_overlap(sums: Tensor) -> float:
    dice = sums[0] / sums[1]
    return float(dice[sums[1] > 0].mean())


def _mean_foreground_dice(sums: Tensor) -> float:
    both = (sums.sum(0) + sums.sum(1))[1:]
    dice = 2 * sums.diagonal()[1:] / both
    return float(dice[both > 0].mean())  # no foreground at all: NaN, not a number made up


TRAINING_DICE = TrainingScore("training_dice", _confusion, _mean_foreground_dice)
"""Mean Dice over the foreground classes that occur."""
TRAINING_ACCURACY = TrainingScore(
    "training_accuracy", _confusion, lambda sums: float(sums.diagonal().sum() / sums.sum())
)
"""Share of the cases that got the right class."""
TRAINING_REGIONS = TrainingScore("training_dice", _overlaps, _mean_overlap)
"""Mean Dice over the regions that occur."""
TRAINING_FINDINGS = TrainingScore(
    "training_accuracy", _right_findings, lambda sums: float(sums[0] / sums[1].clamp(min=1))
)
"""Share of the known findings that are called right."""
TRAINING_ERROR = TrainingScore("training_mae", _absolute_errors, lambda sums: float(sums[0] / sums[1]), in_units=True)
"""Mean absolute error."""
