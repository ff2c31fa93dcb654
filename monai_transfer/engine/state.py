"""What a handler needs to know of the engine that it sits on: the bare network, real steps, state.

Handlers that carry state register it on the engine, so that one checkpoint holds everything without a list of ids in
the config.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from monai_transfer.networks.wrappers import unwrap

__all__ = [
    "bare_network",
    "beside",
    "deploy_by",
    "deployed_weights",
    "is_step",
    "keep_beside",
    "register_stateful",
    "stateful_of",
]

_ATTRIBUTE = "transfer_stateful"
_BESIDE = "transfer_beside"
_DEPLOYED = "transfer_deployed"


def register_stateful(engine: Any, name: str, item: Any) -> None:
    """Have ``item`` (``state_dict``/``load_state_dict``) saved and resumed under ``name`` with this engine's run.

    Args:
        engine: the trainer.
        name: of the entry in its checkpoint.
        item: with ``state_dict`` and ``load_state_dict``.

    Raises:
        ValueError: another object is registered under this name.

    >>> from ignite.engine import Engine
    >>> engine, scheduler = Engine(lambda engine, batch: None), nn.Identity()
    >>> register_stateful(engine, "scheduler", scheduler)
    >>> list(stateful_of(engine))
    ['scheduler']
    """
    registered = stateful_of(engine)
    if registered.setdefault(name, item) is not item:
        raise ValueError(f"two handlers register their state as {name!r}: give one of them another name")


def stateful_of(engine: Any) -> dict[str, Any]:
    """Everything registered on this engine, by name.

    Args:
        engine: the trainer.

    >>> from ignite.engine import Engine
    >>> stateful_of(Engine(lambda engine, batch: None))  # nobody has registered
    {}
    """
    if not hasattr(engine, _ATTRIBUTE):
        setattr(engine, _ATTRIBUTE, {})
    return getattr(engine, _ATTRIBUTE)


def deployed_weights(engine: Any) -> AbstractContextManager[Any]:
    """While it lasts the network holds the weights that are handed on: those of a running average, or its own.

    Args:
        engine: the trainer.

    >>> from ignite.engine import Engine
    >>> with deployed_weights(Engine(lambda engine, batch: None)) as swapped:
    ...     print(swapped)  # no handler averages: the network keeps its own
    None
    """
    swapped: Callable[[], AbstractContextManager[Any]] = getattr(engine, _DEPLOYED, nullcontext)
    return swapped()


def deploy_by(engine: Any, swapped: Callable[[], AbstractContextManager[Any]]) -> None:
    """Have ``deployed_weights`` of this engine enter ``swapped()``.

    Args:
        engine: the trainer.
        swapped: gives a context in which the network holds the other weights.

    Raises:
        ValueError: another handler decides it already.

    >>> from contextlib import nullcontext
    >>> from ignite.engine import Engine
    >>> engine = Engine(lambda engine, batch: None)
    >>> deploy_by(engine, lambda: nullcontext("averaged weights"))
    >>> with deployed_weights(engine) as swapped:
    ...     print(swapped)
    averaged weights
    """
    if hasattr(engine, _DEPLOYED):
        raise ValueError("two handlers average the weights of one trainer: keep one of them")
    setattr(engine, _DEPLOYED, swapped)


def keep_beside(engine: Any, name: str, swapped: Callable[[], AbstractContextManager[bool]]) -> None:
    """Have ``models/<name>.pt`` saved beside the weights that are handed on.

    ``swapped()`` puts them into the network while it lasts, and gives whether there are any.

    Args:
        engine: the trainer.
        name: of the file.
        swapped: gives a context in which the network holds those weights.

    >>> from contextlib import nullcontext
    >>> from ignite.engine import Engine
    >>> engine = Engine(lambda engine, batch: None)
    >>> keep_beside(engine, "model_average", lambda: nullcontext(True))
    >>> list(beside(engine))
    ['model_average']
    """
    setattr(engine, _BESIDE, {**beside(engine), name: swapped})


def beside(engine: Any) -> dict[str, Callable[[], AbstractContextManager[bool]]]:
    """What ``keep_beside`` was told of this engine, by name.

    Args:
        engine: the trainer.

    >>> from ignite.engine import Engine
    >>> beside(Engine(lambda engine, batch: None))
    {}
    """
    return getattr(engine, _BESIDE, {})


def bare_network(engine: Any) -> nn.Module:
    """The engine's network without wrappers; only there once the engine runs.

    Args:
        engine: a trainer or evaluator.

    >>> from types import SimpleNamespace
    >>> network = nn.Linear(2, 1)
    >>> bare_network(SimpleNamespace(network=nn.DataParallel(network))) is network
    True
    """
    return unwrap(engine.network)


def is_step(engine: Any) -> bool:
    """Whether the trainer steps its optimizer in this iteration (the rule of MONAI's ``accumulation_steps``).

    Args:
        engine: the trainer, in an iteration.

    With ``accumulation_steps=2`` and five batches, the optimizer steps after the second, the fourth and the last:

    >>> from types import SimpleNamespace
    >>> states = [SimpleNamespace(iteration=n, epoch_length=5) for n in range(1, 6)]
    >>> [is_step(SimpleNamespace(accumulation_steps=2, state=state)) for state in states]
    [False, True, False, True, True]
    """
    steps = getattr(engine, "accumulation_steps", 1)
    if steps <= 1:
        return True
    length = engine.state.epoch_length
    local = (engine.state.iteration - 1) % length if length else engine.state.iteration - 1
    return (local + 1) % steps == 0 or local + 1 == length
