"""The network that a MONAI bundle defines. Opening its config runs the bundle's code."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from monai_transfer.errors import InputError

__all__ = ["bundle_network"]

_CONFIGS = [f"{name}.{kind}" for name in ("inference", "train") for kind in ("json", "yaml", "yml")]
_NAMES = ("network_def", "network", "net")


def bundle_network(folder: Path, overrides: Mapping[str, Any] | None = None) -> nn.Module:
    """Build ``network_def`` of a bundle's ``configs/inference.*``, else of ``configs/train.*``, on the CPU.

    Args:
        folder: the bundle.
        overrides: arguments of the network to set.

    Raises:
        InputError: there is no such config or no network in it, or building it fails.
    """
    from monai.bundle import ConfigParser

    for name in _CONFIGS:
        path = folder / "configs" / name
        if not path.is_file():
            continue
        parser = ConfigParser()
        try:
            parser.read_config(str(path))
        except Exception as error:  # yaml, json and MONAI raise many kinds
            raise InputError(f"cannot be read as a config ({error})", path=path) from error
        key = next((key for key in _NAMES if key in parser.get()), None)
        if key is None:
            continue
        parser["bundle_root"] = str(folder)
        if "device" in parser.get():
            parser["device"] = "$torch.device('cpu')"
        for argument, value in (overrides or {}).items():
            parser[f"{key}::{argument}"] = value
        with _importable(folder):
            try:
                network = parser.get_parsed_content(key)
            except Exception as error:  # whatever the bundle's code raises
                raise InputError(f"its {key} cannot be built ({error})", path=path) from error
        if isinstance(network, nn.Module):
            return network
    raise InputError("the bundle's configs define no network_def", path=folder, hint="build the network in Python")


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Bundles may name their own ``scripts.*`` modules."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
