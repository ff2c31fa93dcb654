"""How well the training batches themselves are predicted, for a per cent of a step (benchmarks/step_overhead.py).

MONAI computes training metrics on decollated batches after postprocessing. Here one confusion matrix is kept on the
device for the epoch: no copy, no synchronisation, and Dice and accuracy are read off it when the epoch ends. So the
Dice is that of the epoch's voxels together, not the mean over cases; it shows whether training learns, and no more.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from monai_transfer.engine.state import bare_network
from monai_transfer.errors import InputError
from monai_transfer.networks.output_forms import main_output
from monai_transfer.networks.tap import first_tensor
from monai_transfer.tasks import Task, get_task

__all__ = ["TrainingMetrics"]


class TrainingMetrics:
    """Adds ``training_dice``, ``training_accuracy`` or ``training_mae`` to the epoch's row of ``MetricsLog``.

    Predictions are logits B x C x spatial (one channel: a binary logit) or B x C, labels class indices B x 1 x spatial
    or B; for a regression both are values. The sums are per process and added over processes at the epoch's end.

    Args:
        task: a task or its name; which score it is stands in its description.
        scale: what one unit of a regression's normalised labels is worth.

    Raises:
        InputError: a task that is not known, or one without such a score.

    >>> import torch
    >>> from monai.engines import SupervisedTrainer
    >>> net = torch.nn.Linear(2, 2)
    >>> _ = net.load_state_dict({"weight": torch.eye(2), "bias": torch.zeros(2)})
    >>> batches = [{"image": torch.tensor([[2.0, 0.0], [0.0, 2.0]]), "label": torch.tensor([0, 0])}]
    >>> trainer = SupervisedTrainer(torch.device("cpu"), 1, batches, net, torch.optim.SGD(net.parameters(), 0.1),
    ...                             torch.nn.CrossEntropyLoss(), train_handlers=[TrainingMetrics("classification")])
    >>> trainer.run()
    >>> trainer.state.training_log  # one of the two images is taken for class 0
    {'training_accuracy': 0.5}
    """

    def __init__(self, task: str | Task, scale: float = 1.0) -> None:
        score = get_task(task).training_score
        if score is None:
            raise InputError(f"no training metric for the task {get_task(task).name!r}", hint="leave the handler out")
        self.score, self.scale = score, scale
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
        sums = self.score.sums(prediction, label)
        self._sums = sums if self._sums is None else self._sums + sums

    def _publish(self, engine: Any) -> None:
        if self._sums is None:
            return
        sums = self._sums  # whole numbers of voxels: float32 would lose them in a large epoch
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        sums = sums.cpu().double()
        scale = self.scale if self.score.in_units else 1.0
        values = {self.score.name: scale * self.score.value(sums)}
        engine.state.training_log = values
