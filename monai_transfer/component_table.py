"""MONAI's table of component names, once per process instead of once per parser.

A ``ConfigParser`` looks every ``_target_`` up in a table of all classes of MONAI that it makes anew, 40 ms of processor
time, also where the target is a full path, which no table holds. A training of ours makes dozens of parsers.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from monai.bundle import ComponentLocator, ConfigParser

__all__ = ["SharedTable", "build_config", "share_table"]

Parser = TypeVar("Parser", bound=ConfigParser)


class SharedTable(ComponentLocator):
    """As MONAI's, with the table made at the first short name, and again where modules have been imported since.

    >>> SharedTable().get_component_module_name("UNet")
    'monai.networks.nets.unet'
    >>> SharedTable().get_component_module_name("monai.networks.nets.UNet") is None  # a path stands for itself
    True
    """

    _tables: dict[int, dict[str, list]] = {}  # noqa: RUF012 - one process, one table

    def get_component_module_name(self, name: str) -> list[str] | str | None:
        """The module of a class or function that is given by its name alone."""
        if "." in name:
            return None
        names = self._find_module_names()
        if len(names) not in self._tables:
            self._tables.clear()
            self._tables[len(names)] = self._find_classes_or_functions(names)
        self._components_table = self._tables[len(names)]
        return super().get_component_module_name(name)


def share_table(parser: Parser) -> Parser:
    """Have a parser that has parsed nothing yet look names up in the shared table; returns it."""
    parser.locator = SharedTable()
    return parser


def build_config(config: dict[str, Any]) -> Any:
    """What a component's config makes; expressions in it may say ``torch``.

    A parser rewrites what it is given, expressions of ours among it, and would leave them as text that is written as
    data: it gets a copy.

    >>> build_config({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1})
    Linear(in_features=2, out_features=1, bias=True)
    """
    parser = share_table(ConfigParser({"imports": ["$import torch"], "made": copy.deepcopy(config)}))
    return parser.get_parsed_content("made")
