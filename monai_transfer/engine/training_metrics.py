"""How well the training batches themselves are predicted, for a per cent of a step (benchmarks/step_overhead.py).

MONAI computes training metrics on decollated batches after postprocessing. Here one confusion matrix is kept on the
device for the epoch: no copy, no synchronisation, and Dice and accuracy are read off it when the epoch ends. So the
Dice is that of the epoch's voxels together, not the mean over cases; it shows whether training learns, and no more.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from monai_transfer.engine.state import bare_network
from monai_transfer.errors import InputError
from monai_transfer.networks.output_forms import main_output
from monai_transfer.networks.tap import first_tensor

__all__ = ["TrainingMetrics"]


class TrainingMetrics:
    """Adds ``training_dice``, ``training_accuracy`` or ``training_mae`` to the epoch's row of ``MetricsLog``.

    Predictions are logits B x C x spatial (one channel: a binary logit) or B x C, labels class indices B x 1 x spatial
    or B; for a regression both are values. The sums are per process and added over processes at the epoch's end.

    Args:
        task: ``segmentation`` or ``localization`` (mean Dice over the foreground classes that occur),
            ``classification`` or ``regression``.
        scale: what one unit of a regression's normalised labels is worth.

    Raises:
        InputError: another task.
    """

    def __init__(self, task: str, scale: float = 1.0) -> None:
        if task not in ("segmentation", "localization", "classification", "regression"):
            raise InputError(
                f"no training metric for the task {task!r}", hint="leave TrainingMetrics out of the handlers"
            )
        self.task, self.scale = task, scale
        self._sums: Tensor | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer, before ``MetricsLog``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._publish)

    def _reset(self, engine: Engine) -> None:
        self._sums = None

    def _add(self, engine: Any) -> None:
        output = engine.state.output
        dims = first_tensor(output["image"]).ndim - 2
        prediction = main_output(output["pred"], dims, bare_network(engine)).detach()
        label = first_tensor(output["label"]).detach()
        if self.task == "regression":
            error = (prediction.flatten() - label.flatten()).abs()
            sums = torch.stack([error.sum(), torch.full_like(error[0], error.numel())])
        else:
            sums = _confusion(prediction, label)
        self._sums = sums if self._sums is None else self._sums + sums

    def _publish(self, engine: Any) -> None:
        if self._sums is None:
            return
        sums = self._sums  # whole numbers of voxels: float32 would lose them in a large epoch
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        sums = sums.cpu().double()
        if self.task == "regression":
            values = {"training_mae": self.scale * float(sums[0] / sums[1])}
        elif self.task == "classification":
            values = {"training_accuracy": float(sums.diagonal().sum() / sums.sum())}
        else:
            both = (sums.sum(0) + sums.sum(1))[1:]
            dice = 2 * sums.diagonal()[1:] / both
            values = {"training_dice": float(dice[both > 0].mean())}  # no foreground at all: NaN, not a number made up
        engine.state.training_log = values


def _confusion(prediction: Tensor, label: Tensor) -> Tensor:
    """C x C: label along the rows, prediction along the columns. An ignored label, such as -1, counts for nothing."""
    if prediction.shape[1] == 1:
        prediction = torch.cat([torch.zeros_like(prediction), prediction], 1)
    classes = prediction.shape[1]
    if label.ndim == prediction.ndim:
        label = label[:, 0] if label.shape[1] == 1 else _highest(label)  # else one-hot
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


def _highest(scores: Tensor) -> Tensor:
    """``scores.argmax(1)``, which is some fifty times slower on a CPU because the channels lie far apart."""
    if scores.is_cuda or not 2 <= scores.shape[1] <= 16:
        return scores.argmax(1)
    best = scores[:, 0]
    found = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for number in range(1, scores.shape[1]):
        score = scores[:, number]
        found = torch.maximum(found, (score > best).view(torch.uint8).mul_(number))
        best = torch.maximum(best, score)
    return found
