"""Weights into the network of an inference, from a file of any dialect, verified and complete or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from monai_transfer.errors import CoverageError, InputError
from monai_transfer.weights import Source
from monai_transfer.weights.transfer import transfer_weights

__all__ = ["LoadWeights", "load_complete"]


def load_complete(network: nn.Module, path: str | Path) -> None:
    """Load a weights file into a network, all of it.

    Args:
        network: on any device.
        path: a checkpoint; a hash beside it is verified.

    Raises:
        InputError: it cannot be read, or it is not of this network.
    """
    source = Source.load(path)
    hint = "name the weights that were trained with this bundle's configs"
    own = network.state_dict()
    if own.keys() == source.state_dict.keys():
        try:
            network.load_state_dict(source.state_dict)
            return
        except RuntimeError as error:
            fault = f"these are not the weights of its network ({str(error).splitlines()[-1].strip()[:160]})"
            raise InputError(fault, path=path, hint=hint) from error
    try:
        report = transfer_weights(network, source, min_coverage=1.0)
    except CoverageError as error:
        raise InputError(f"these are not the weights of its network ({error})", path=path, hint=hint) from error
    changed = [*report.missing, *report.skipped, *report.adapted]
    if changed:
        raise InputError(f"these are not the weights of its network ({changed[0]} differs)", path=path, hint=hint)


class LoadWeights:
    """Handler that loads weights when its engine starts.

    Args:
        path: the file.
        network: where they go.

    >>> import tempfile
    >>> import torch
    >>> path = f"{tempfile.mkdtemp()}/model.pt"
    >>> torch.save({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, path)
    >>> network = nn.Linear(2, 1)
    >>> engine = Engine(lambda engine, batch: None)
    >>> LoadWeights(path, network).attach(engine)
    >>> _ = engine.run([0])
    >>> network.weight.tolist()
    [[1.0, 1.0]]
    """

    def __init__(self, path: str, network: nn.Module) -> None:
        self.path, self.network = path, network
        self.loaded = False

    def attach(self, engine: Engine) -> None:
        """To an evaluator."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Load once."""
        if not self.loaded:
            load_complete(self.network, self.path)
            self.loaded = True
