"""``AdaptLoss``: a loss function with a method's term in it, for ignite and for any loop that calls a loss function.

``ignite.engine.create_supervised_trainer`` has no moment between its loss and its backward pass, so the term is added
where the loss is computed. The source image is seen by a hook on the network's forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from monai_transfer.engine.method_step import MethodStep
from monai_transfer.engine.state import register_stateful
from monai_transfer.methods.base import Method

__all__ = ["AdaptLoss"]


class AdaptLoss:
    """``loss_function(prediction, label)`` plus a method's term, once for each training pass of the network.

    In validation (without gradients, or the network in eval mode) it is the loss function alone. A loop that calls it
    for several scales of a deep supervision gets the term with the first.

    Args:
        loss_function: the task's own.
        method: the method.
        network: the network, wrapped as it is trained, on its device.
        target_loader: batches of the other domain; see ``MethodStep``.
        optimizer: the network's.
        name: the name of its entry in the checkpoint.
        options: as of ``MethodStep``: ``layer``, ``weight``, ``pool``, ``statistics``, ``keys``, ``task``, ``scaler``,
            and ``epochs`` and ``epoch_length`` where no engine is followed.

    Raises:
        InputError: as ``MethodStep``.

    >>> from ignite.engine import create_supervised_trainer
    >>> from monai_transfer.methods.coral import Coral
    >>> _ = torch.manual_seed(0)
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> optimizer = torch.optim.SGD(network.parameters(), 0.1)
    >>> loss = AdaptLoss(nn.CrossEntropyLoss(), Coral(), network, [torch.randn(8, 4) + 1], optimizer=optimizer)
    >>> trainer = create_supervised_trainer(network, optimizer, loss)
    >>> loss.attach(trainer)
    >>> _ = trainer.run([(torch.randn(8, 4), torch.tensor([0, 1] * 4))], max_epochs=2)
    >>> sorted(trainer.state.adapt_log)
    ['adapt_loss', 'supervised_loss']
    """

    def __init__(
        self,
        loss_function: Callable[[Any, Any], Tensor],
        method: Method,
        network: nn.Module,
        target_loader: Iterable[Any] | None = None,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        name: str = "adapt",
        **options: Any,
    ) -> None:
        self.loss_function, self.name = loss_function, name
        self.step = MethodStep(method, network, target_loader, optimizer=optimizer, **options)
        self._network, self._optimizer = network, optimizer
        self._passes = 0

    def __call__(self, prediction: Any, label: Any) -> Tensor:
        """The loss to run backward on."""
        loss = self.loss_function(prediction, label)
        watch = self.step.watch
        if watch is None or watch.passes == self._passes or not torch.is_grad_enabled():
            return loss
        self._passes = watch.passes
        return self.step(label=label, loss=loss.mean())

    def attach(self, engine: Engine) -> None:
        """Follow an ignite engine: its epochs, its progress, its scaler and its checkpoint; logs into its state."""
        register_stateful(engine, self.name, self)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self.step.start_epoch())
        engine.add_event_handler(Events.ITERATION_STARTED, self._follow)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._end_epoch)
        engine.add_event_handler(Events.COMPLETED, lambda: self.step.finish())

    def _start(self, engine: Any) -> None:
        if self.step.watch is None:  # a run after the first
            self.step.bind(self._network, self._optimizer, watch=True)
        scaler = getattr(engine, "scaler", None) or getattr(engine.state, "scaler", None)
        self.step.scaler = self.step.scaler or scaler
        self._passes = 0

    def _follow(self, engine: Engine) -> None:
        state = engine.state
        self.step.progress.follow(state.iteration, state.epoch_length, state.max_epochs or 1)

    def _end_epoch(self, engine: Engine) -> None:
        if self.step.progress.ends_epoch:
            self.step.lend_weights()
            engine.state.adapt_log = {**getattr(engine.state, "adapt_log", {}), **self.step.means()}

    def state_dict(self) -> dict[str, Any]:
        """As ``MethodStep.state_dict``."""
        return self.step.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As ``MethodStep.load_state_dict``."""
        self.step.load_state_dict(state)
