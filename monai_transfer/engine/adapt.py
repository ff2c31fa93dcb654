"""``Adapt``: the handler that adds a method's term to the loss of any MONAI trainer, without a trainer subclass.

A ``SupervisedTrainer`` fires ``LOSS_COMPLETED`` after its loss and before backward, inside autocast, and backward reads
``state.output["loss"]`` again. So the term is added there, and accumulation, AMP, compile and DDP keep working. All
that the method itself needs lies in ``MethodStep``; a trainer that does not work so is refused in its first iteration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents, default_prepare_batch

from monai_transfer.engine.method_step import MethodStep
from monai_transfer.engine.state import keep_beside, register_stateful
from monai_transfer.errors import InputError
from monai_transfer.methods.base import Method

__all__ = ["Adapt"]

_INSTEAD = "wrap its loss function instead: AdaptLoss(loss_function, method, network, target_loader, optimizer=...)"


class Adapt:
    """Add ``weight * method(fields, progress)`` to the loss of a MONAI trainer.

    Use it as one more handler: ``SupervisedTrainer(..., train_handlers=[Adapt(Coral(), target_loader)])``. Batches of
    both loaders are dictionaries with ``image`` (and ``label``, ``strong`` where the method asks for them), or tuples
    (image, label), or whatever the trainer's own ``prepare_batch`` takes apart. The target loader is run through
    endlessly, made anew each epoch, and may be of any length.

    Each iteration puts ``supervised_loss``, ``adapt_loss`` (the raw, unweighted term) and what the method logs into
    ``engine.state.output``, and the epoch's means into ``engine.state.adapt_log``.

    Args:
        method: the method; its own parameters are moved to the engine's device and have an optimizer of their own.
        target_loader: batches of the other domain; needed when the method asks for a ``target_*`` field.
        layer: module name of the network whose output is the features; default: what enters the class head.
        weight: factor of the term.
        pool: how B x F x spatial features become B x F: ``"mean"``, ``"max"``, or ``None`` to leave them.
        statistics: whose batches count in BatchNorm's running averages, which evaluation uses: ``"both"`` domains, as
            in most papers, or ``"target"`` alone, for a network that will only serve the target. ``"kept"``: nobody's,
            the source's stay. Training normalises each batch by its own whatever is said here. ``"domain"`` goes
            further (DSBN, ``networks.domain_norms``): each domain has its own scale and shift as well, and the network
            is left with the target's. It and ``"target"`` need a method that passes target images through. ``None``:
            what the method declares, which mostly is ``"both"``.
        name: the name of its entry in the checkpoint, for two of them on one trainer.
        keys: what image, label, strong view and order are called in the batches, where not so: ``{"image": "img"}``.
        task: of the network, as in ``monai_transfer.tasks``; default: as far as the first outputs and labels tell it.
            Regions (findings) no two of which meet in the first batch look like classes: say ``"regions"``.

    Raises:
        InputError: ``method`` is none, needs a target loader and none was given, asks for an unknown field, or is not
            for the task (as far as outputs and labels tell it) or the dimensions of the images; a batch lacks a key;
            or the trainer gives no chance to add to its loss.

    Stock trainer, labelled source batches, an unlabelled target loader:

    >>> import torch
    >>> from monai.engines import SupervisedTrainer
    >>> from monai_transfer.methods.coral import Coral
    >>> from monai_transfer.engine.adapt import Adapt
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> source = [{"image": torch.randn(8, 4), "label": torch.arange(8) % 2} for _ in range(3)]
    >>> target = [{"image": torch.randn(8, 4) + 1} for _ in range(3)]
    >>> trainer = SupervisedTrainer(
    ...     device=torch.device("cpu"), max_epochs=1, train_data_loader=source, network=network, decollate=False,
    ...     optimizer=torch.optim.SGD(network.parameters(), lr=0.1), loss_function=torch.nn.CrossEntropyLoss(),
    ...     train_handlers=[Adapt(Coral(), target)],
    ... )
    >>> trainer.logger.setLevel("ERROR")
    >>> trainer.run()
    >>> trainer.state.output["adapt_loss"].ndim
    0
    """

    def __init__(
        self,
        method: Method,
        target_loader: Iterable[Any] | None = None,
        *,
        layer: str | None = None,
        weight: float = 1.0,
        pool: str | None = "mean",
        statistics: str | None = None,
        name: str = "adapt",
        keys: Mapping[str, str] | None = None,
        task: str | None = None,
    ) -> None:
        shared: dict[str, Any] = {"layer": layer, "weight": weight, "pool": pool, "keys": keys, "task": task}
        self.step = MethodStep(method, None, target_loader, statistics=statistics, **shared)
        self.name = name
        self._first = _FirstIteration()

    @property
    def method(self) -> Method:
        """The method."""
        return self.step.method

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The method's own optimizer, once its parts are sized."""
        return self.step.own.of_method

    @property
    def statistics(self) -> str:
        """Whose batches count in the norm layers."""
        return self.step.statistics.mode

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer.

        Raises:
            InputError: the engine fires none of MONAI's ``IterationEvents``.
        """
        try:
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._add_term)
        except ValueError as error:
            raise InputError("this engine has no event between loss and backward pass", hint=_INSTEAD) from error
        register_stateful(engine, self.name, self)
        keep_beside(engine, "student", self.step.own_weights)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self.step.start_epoch())
        engine.add_event_handler(Events.ITERATION_STARTED, lambda: self.step.before_source())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._look_back)
        # before EPOCH_COMPLETED, where logs attached earlier than this handler already read it
        engine.add_event_handler(Events.ITERATION_COMPLETED(event_filter=_last_of_epoch), self._end_epoch)
        engine.add_event_handler(Events.COMPLETED, lambda: self.step.finish())

    def _start(self, engine: Any) -> None:
        step = self.step
        step.scaler = engine.scaler if getattr(engine, "amp", False) else None
        step.bind(
            engine.network,
            engine.optimizer,
            forward=lambda image, *more, **options: engine.inferer(image, engine.network, *more, **options),
            device=engine.state.device,
            non_blocking=getattr(engine, "non_blocking", False),
        )
        prepare = getattr(engine, "prepare_batch", None)
        if prepare is not None and prepare is not default_prepare_batch:
            step.collector.target.prepare = lambda *batch: prepare(*batch, **getattr(engine, "to_kwargs", {}))
        self._first = _FirstIteration(engine.optimizer)

    def _add_term(self, engine: Any) -> None:
        state = engine.state
        output = state.output
        self.step.progress.follow(state.iteration, state.epoch_length, state.max_epochs)
        image, label, logits = output["image"], output["label"], output["pred"]
        total = self.step(image, label, logits, loss=output["loss"], batch=state.batch)
        output["loss"] = total
        output.update(self.step.logs)
        self._first.expect(total)

    def _look_back(self, engine: Any) -> None:
        if fault := self._first.fault(self.step):
            raise InputError(f"{type(engine).__name__} {fault}", hint=_INSTEAD)

    def _end_epoch(self, engine: Any) -> None:
        self.step.lend_weights()
        engine.state.adapt_log = {**getattr(engine.state, "adapt_log", {}), **self.step.means()}

    def state_dict(self) -> dict[str, Any]:
        """As ``MethodStep.state_dict``."""
        return self.step.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As ``MethodStep.load_state_dict``."""
        self.step.load_state_dict(state)


class _FirstIteration:
    """Whether a trainer's first iteration ran backward on the loss that was given back, and stepped its own optimizer.

    A trainer of someone's own may compute its loss behind the events' back, and the term would be lost in silence.
    """

    def __init__(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        self._watched = optimizer is not None
        self._added = self._backward = False
        self._parameters = [p for g in optimizer.param_groups for p in g["params"]] if optimizer is not None else []
        self._versions: list[int] = []

    def expect(self, loss: torch.Tensor) -> None:
        """``loss`` is what the backward pass should begin with."""
        if not self._watched:
            return
        self._added, self._backward = True, not loss.requires_grad
        self._versions = [p._version for p in self._parameters]
        if loss.requires_grad:
            loss.register_hook(self._passed)

    def _passed(self, _gradient: torch.Tensor) -> None:
        self._backward = True

    def fault(self, step: MethodStep) -> str | None:
        """What is wrong with the trainer, after its first iteration; None after the others."""
        if not self._watched:
            return None
        self._watched = False
        if not self._added:
            return "fires no LOSS_COMPLETED, so no term can be added to its loss"
        if not self._backward:
            return "runs backward on another loss than state.output['loss'], so the term would be lost"
        moved = [p._version for p in self._parameters] != self._versions
        if moved and step.follows_steps and not step.stepped:
            return "steps another optimizer than its own, so what belongs to the method would stand still"
        return None


def _last_of_epoch(engine: Engine, _count: int) -> bool:
    return engine.state.iteration % (engine.state.epoch_length or 1) == 0
