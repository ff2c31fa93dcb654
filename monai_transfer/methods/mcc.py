"""MCC: classes are to be confused little on the target, as its own predictions tell.

    p = softmax(z / T),   H_i the entropy of p_i,   w_i = B (1 + exp(-H_i)) / sum_j (1 + exp(-H_j))   (constants)
    C = p' diag(w) p, its rows normalised to 1;   L = weight * (sum C - trace C) / K

Paper: Jin, Wang, Long and Wang, Minimum Class Confusion for Versatile Domain Adaptation, ECCV 2020, arXiv:1912.03699

Defaults are the paper's: T 2.5, weight 1. With two or three classes a batch is always confused by a few cases and the
term drowns the task, so the default weight is 0.1 there. It needs no critic and no source features; of all methods it
was the best on digits (MNIST to USPS after 400 steps 90.3, TLlib's own 90.0: ``benchmarks/mnist_usps.py``). Batches
should hold several cases of each class: 8 and more. Normalisation statistics: the target batch is a second forward
pass, so each domain is normalised by its own batch and both enter the running averages.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monai_transfer.errors import InputError
from monai_transfer.methods.base import Fields, Method
from monai_transfer.networks.outputs import log_probabilities
from monai_transfer.tasks.for_methods import IMAGE_CLASSES

__all__ = ["Mcc", "class_confusion_loss"]

FEW_CLASSES = 3


def class_confusion_loss(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """Minimum class confusion of N x K logits; a scalar in [0, 1), 0 where every case is sure of one class.

    Args:
        logits: N x K; K = 1 is a sigmoid's.
        temperature: logits are divided by it.

    Raises:
        InputError: the logits are not N x K, or the temperature is not positive.

    >>> import torch
    >>> sure, torn = torch.tensor([[99.0, 0.0], [0.0, 99.0]]), torch.zeros(2, 2)
    >>> class_confusion_loss(sure).item(), class_confusion_loss(torn).item()
    (0.0, 0.5)
    """
    if logits.ndim != 2 or temperature <= 0:
        raise InputError(
            f"class confusion is of N x K logits at a positive temperature, got {tuple(logits.shape)} at {temperature}",
            hint="use it for a classification; the paper's temperature is 2.5",
        )
    two = log_probabilities(logits) if logits.shape[1] == 1 else logits
    p = log_probabilities(two / temperature).exp()
    with torch.no_grad():
        entropy = -(p * (p + 1e-5).log()).sum(1)
        weight = 1 + (-entropy).exp()
        weight = len(p) * weight / weight.sum()
    confusion = (p * weight.unsqueeze(1)).T @ p
    confusion = confusion / confusion.sum(1, keepdim=True)
    return (confusion.sum() - confusion.trace()) / p.shape[1]


class Mcc(Method):
    """Minimum class confusion on the target's predictions.

    Args:
        temperature: T.
        weight: factor of the term; ``None``: 1, and 0.1 with two or three classes.

    Raises:
        InputError: the temperature is not positive.

    >>> import torch
    >>> from monai_transfer.methods.base import Fields
    >>> torn = torch.zeros(4, 10)
    >>> round(Mcc()(Fields(target_logits=torn), progress=0.5).item(), 3)  # each class is confused with nine others
    0.9
    """

    needs = frozenset({"target_logits"})
    tasks = IMAGE_CLASSES
    limits = {
        "segmentation": "voxels of a batch are nearly all background, with which everything is confused",
        "regression": "it works on class probabilities",
    }

    def __init__(self, temperature: float = 2.5, weight: float | None = None) -> None:
        super().__init__()
        if temperature <= 0:
            raise InputError(f"the temperature of MCC is positive, got {temperature}", hint="2.5 is the paper's")
        self.temperature, self.weight = temperature, weight

    def forward(self, fields: Fields, progress: float) -> Tensor:
        loss = class_confusion_loss(fields.target_logits, self.temperature)
        classes = max(fields.target_logits.shape[1], 2)
        weight = self.weight if self.weight is not None else 0.1 if classes <= FEW_CLASSES else 1.0
        return weight * loss
