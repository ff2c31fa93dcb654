"""A running average of the weights (EMA) beside a training, as a handler: validated and handed on in the last one's
place.

    w <- d w + (1 - d) w_t,   d = min(decay, (1 + t) / (10 + t))   after each real optimizer step t

Paper: Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, SIAM Journal on Control and
Optimization 1992; Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv:1703.01780 (the
average of the weights as the better model; buffers are averaged as well here, counters copied)

With two or four validation cases the best epoch is chosen by noise; the average, like the last epoch, needs no choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from monai_transfer.engine.state import bare_network, deploy_by, is_step, register_stateful
from monai_transfer.errors import InputError

__all__ = ["WeightAverage"]


class WeightAverage:
    """Keep a running average of the network's weights; at the end the network holds it.

    Stands before ``Checkpoint`` in a trainer's list: then ``models/model.pt`` holds the average, ``models/last.pt``
    both, and a resumed run goes on bitwise. While ``validator`` runs the network holds the average.

    Args:
        decay: how slowly it follows; over a run of n steps, about 1 - 10 / n.
        validator: the evaluator of this training, if any.
        name: of its entry in the checkpoint.

    Raises:
        InputError: a decay outside [0, 1).

    >>> from monai.engines import SupervisedTrainer
    >>> network = nn.Linear(1, 1)
    >>> trainer = SupervisedTrainer(
    ...     device=torch.device("cpu"), max_epochs=60, network=network, loss_function=nn.MSELoss(), decollate=False,
    ...     train_data_loader=[{"image": torch.ones(1, 1), "label": torch.full((1, 1), 3.0)}],
    ...     optimizer=torch.optim.SGD(network.parameters(), 0.1), train_handlers=[WeightAverage(0.5)])
    >>> trainer.run()
    >>> round(network(torch.ones(1, 1)).item(), 2)
    3.0
    """

    def __init__(self, decay: float = 0.99, validator: Engine | None = None, name: str = "weight_average") -> None:
        if not 0 <= decay < 1:
            raise InputError(f"the decay of an average lies in [0, 1), not at {decay}", hint="such as 0.999")
        self.decay, self.validator, self.name = float(decay), validator, name
        self.step = 0
        self.average: dict[str, Tensor] = {}
        self._network: nn.Module | None = None
        self._resumed = self._active = False
        self._own: dict[str, Tensor] | None = None  # the training's weights, while the network holds the average

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer, and to its validator."""
        register_stateful(engine, self.name, self)
        deploy_by(engine, self.swapped)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        if self.validator is not None:
            self.validator.add_event_handler(Events.STARTED, lambda _engine: self._enter())
            for event in (Events.COMPLETED, Events.EXCEPTION_RAISED):
                self.validator.add_event_handler(event, self._leave_after)

    # ------------------------------------------------------------------ state
    def state_dict(self) -> dict[str, Any]:
        """The average and the number of steps."""
        return {"step": self.step, "average": {key: value.clone() for key, value in self.average.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved average."""
        self.step = int(state["step"])
        self.average = {key: value.clone() for key, value in state["average"].items()}
        self._resumed = True

    # ------------------------------------------------------------------ events
    def _start(self, engine: Any) -> None:
        self._network, self._active = bare_network(engine), False

    def _begin(self, engine: Any) -> None:
        """At the first iteration: a checkpoint was loaded by now, wherever it stands in the list."""
        if self._active:
            return
        assert self._network is not None
        present = self._network.state_dict()
        if not self._resumed:
            self.step = 0
            self.average = {key: value.detach().clone() for key, value in present.items()}
        elif self.average.keys() != present.keys():
            raise InputError("the saved average of the weights is of another network", hint="start over with --fresh")
        else:
            self.average = {key: value.to(present[key]) for key, value in self.average.items()}
        self._resumed, self._active = False, True

    @torch.no_grad()
    def _update(self, engine: Any) -> None:
        if not is_step(engine):
            return
        assert self._network is not None
        self.step += 1
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        for key, value in self._network.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    def _finish(self, engine: Any) -> None:
        self._enter()
        self._own, self._active = None, False  # for good

    # ------------------------------------------------------------------ swapping
    @contextmanager
    def swapped(self) -> Iterator[None]:
        """While it lasts the network holds the average."""
        entered = self._enter()
        try:
            yield
        finally:
            if entered:
                self._leave()

    @torch.no_grad()
    def _enter(self) -> bool:
        if not self._active or self._own is not None:
            return False
        assert self._network is not None
        state = self._network.state_dict()
        self._own = {key: value.detach().clone() for key, value in state.items()}
        for key, value in state.items():
            value.copy_(self.average[key])
        return True

    def _leave_after(self, engine: Any, error: BaseException | None = None) -> None:
        self._leave()
        if error is not None:
            raise error

    @torch.no_grad()
    def _leave(self) -> None:
        if self._network is None or self._own is None:
            return
        for key, value in self._network.state_dict().items():
            value.copy_(self._own[key])
        self._own = None
