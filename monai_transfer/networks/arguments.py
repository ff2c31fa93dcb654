"""What networks call their input channels and outputs: MONAI's nets have several names for each."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

__all__ = ["INPUTS", "OUTPUTS", "argument_of", "with_channels"]

INPUTS = ("in_channels", "n_input_channels", "input_channels")
"""Names of the number of input channels."""

OUTPUTS = ("out_channels", "num_classes", "n_classes")
"""Names of the number of outputs."""


def argument_of(names: tuple[str, ...], known: Container[str]) -> str | None:
    """Which of several names a network has, ``INPUTS`` or ``OUTPUTS``; ``None``: none of them.

    Args:
        names: several names of one thing.
        known: the network's arguments.

    >>> argument_of(OUTPUTS, {"spatial_dims": 3, "num_classes": 2})
    'num_classes'
    """
    return next((name for name in names if name in known), None)


def with_channels(network: Mapping[str, Any], inputs: int, outputs: int) -> dict[str, Any]:
    """A network's config with other numbers of channels and outputs, under the names that it has for them.

    Args:
        network: a MONAI config of a network.
        inputs: channels of the image.
        outputs: number of outputs.

    >>> with_channels({"_target_": "monai.networks.nets.ResNet", "n_input_channels": 1, "num_classes": 400}, 3, 2)
    {'_target_': 'monai.networks.nets.ResNet', 'n_input_channels': 3, 'num_classes': 2}
    """
    found = dict(network)
    for names, value in ((INPUTS, inputs), (OUTPUTS, outputs)):
        found |= {name: value for name in names if name in found}
    return found
