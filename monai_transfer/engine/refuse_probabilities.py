"""Stop at the first batch when a network's probabilities are given to a loss that wants logits.

One case with one output per class could sum to one by chance, so with such batches the second one decides.
"""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents

from monai_transfer.engine.state import bare_network
from monai_transfer.networks.output_check import check_logits
from monai_transfer.networks.output_forms import main_output
from monai_transfer.networks.tap import first_tensor

__all__ = ["RefuseProbabilities"]


class RefuseProbabilities:
    """``networks.output_check.check_logits`` on the first two cases or voxels of a run, before much has been learned.

    Raises:
        InputError: (in the first iteration, or the second) naming the network's end, the loss and the hint.

    >>> import torch
    >>> from monai.engines import SupervisedTrainer
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Softmax(dim=1))
    >>> batches = [{"image": torch.rand(4, 2), "label": torch.tensor([0, 1, 0, 1])}]
    >>> optimizer, loss = torch.optim.SGD(net.parameters(), 0.1), torch.nn.CrossEntropyLoss()
    >>> trainer = SupervisedTrainer(torch.device("cpu"), 1, batches, net, optimizer, loss,
    ...                             train_handlers=[RefuseProbabilities()])
    >>> trainer.run()  # cross entropy takes the softmax itself
    Traceback (most recent call last):
    monai_transfer.errors.InputError: ...
    """

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        self._looked = False  # ignite's own event filters do not count MONAI's events
        self._first: Any = None
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Look at ``engine.state.output['pred']`` of the first batch; where it is one case, of the next too."""
        if self._looked:
            return
        output = engine.state.output
        prediction = output["pred"]
        if isinstance(prediction, torch.Tensor | list | tuple):
            prediction = main_output(prediction, first_tensor(output["image"]).ndim - 2, bare_network(engine))
            if self._first is not None and self._first.shape[1:] == prediction.shape[1:]:
                prediction = torch.cat([self._first, prediction.detach()])
            alone = prediction.ndim > 1 and prediction.numel() == prediction.shape[1]  # one case, no voxels
            self._looked = not alone or self._first is not None
            self._first = prediction.detach() if not self._looked else None
        else:  # a dictionary of outputs: the loss knows which of them it wants
            self._looked = True
            return
        check_logits(bare_network(engine), engine.loss_function, prediction)
