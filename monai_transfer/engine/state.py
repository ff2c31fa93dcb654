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

    Raises:
        ValueError: another object is registered under this name.
    """
    registered = stateful_of(engine)
    if registered.setdefault(name, item) is not item:
        raise ValueError(f"two handlers register their state as {name!r}: give one of them another name")


def stateful_of(engine: Any) -> dict[str, Any]:
    """Everything registered on this engine, by name."""
    if not hasattr(engine, _ATTRIBUTE):
        setattr(engine, _ATTRIBUTE, {})
    return getattr(engine, _ATTRIBUTE)


def deployed_weights(engine: Any) -> AbstractContextManager[Any]:
    """While it lasts the network holds the weights that are handed on: those of a running average, or its own."""
    swapped: Callable[[], AbstractContextManager[Any]] = getattr(engine, _DEPLOYED, nullcontext)
    return swapped()


def deploy_by(engine: Any, swapped: Callable[[], AbstractContextManager[Any]]) -> None:
    """Have ``deployed_weights`` of this engine enter ``swapped()``.

    Raises:
        ValueError: another handler decides it already.
    """
    if hasattr(engine, _DEPLOYED):
        raise ValueError("two handlers average the weights of one trainer: keep one of them")
    setattr(engine, _DEPLOYED, swapped)


def keep_beside(engine: Any, name: str, swapped: Callable[[], AbstractContextManager[bool]]) -> None:
    """Have ``models/<name>.pt`` saved beside the weights that are handed on.

    ``swapped()`` puts them into the network while it lasts, and gives whether there are any.
    """
    setattr(engine, _BESIDE, {**beside(engine), name: swapped})


def beside(engine: Any) -> dict[str, Callable[[], AbstractContextManager[bool]]]:
    """What ``keep_beside`` was told of this engine, by name."""
    return getattr(engine, _BESIDE, {})


def bare_network(engine: Any) -> nn.Module:
    """The engine's network without wrappers; only there once the engine runs."""
    return unwrap(engine.network)


def is_step(engine: Any) -> bool:
    """Whether the trainer steps its optimizer in this iteration (the rule of MONAI's ``accumulation_steps``)."""
    steps = getattr(engine, "accumulation_steps", 1)
    if steps <= 1:
        return True
    length = engine.state.epoch_length
    local = (engine.state.iteration - 1) % length if length else engine.state.iteration - 1
    return (local + 1) % steps == 0 or local + 1 == length
