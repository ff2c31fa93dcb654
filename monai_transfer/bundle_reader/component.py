"""A class with its arguments, as a config names it, and what of a config could not be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Component", "Unread", "components_in", "unread_in"]


@dataclass(frozen=True)
class Unread:
    """A part of a config that was not read.

    Attributes:
        where: its place in the config, e.g. ``preprocessing::transforms::3::func``.
        text: what stands there, shortened.
        reason: why it was not read, in one clause.
        part: of the bundle that needs it: ``network``, ``preprocessing``, ``inferer``, ``postprocessing``, ``loss``.

    >>> print(Unread("preprocessing::transforms::3::func", "$lambda x: open(x)", "it would run code", "preprocessing"))
    preprocessing::transforms::3::func: it would run code ($lambda x: open(x))
    """

    where: str
    text: str
    reason: str
    part: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" + (f" ({self.text})" if self.text else "")


@dataclass(frozen=True)
class Component:
    """A class of the closed table with the arguments that a config gives it; ``build`` makes the object.

    Attributes:
        name: of the class in the table, e.g. ``UNet``, ``Spacingd``.
        kind: ``network``, ``transform``, ``inferer``, ``loss``, ``activation``, ``part`` (of another component),
            ``saver`` (what it says of files is read, it is never made) or ``function`` (``Lambda`` of arithmetic).
        arguments: plain values, ``Component`` and ``Unread``.
        where: its place in the config.
        path: full path of the class, for a config of one's own.

    >>> Component("Spacingd", "transform", {"keys": "image", "pixdim": [1.0, 1.0, 2.0]}).arguments["pixdim"]
    [1.0, 1.0, 2.0]
    """

    name: str
    kind: str
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)
    where: str = ""
    path: str = ""


def unread_in(value: Any) -> Iterator[Unread]:
    """All parts of a value that were not read."""
    if isinstance(value, Unread):
        yield value
    elif isinstance(value, Component):
        yield from unread_in(value.arguments)
    elif isinstance(value, dict):
        for item in value.values():
            yield from unread_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from unread_in(item)


def components_in(value: Any) -> Iterator[Component]:
    """All components of a value, the outer before the inner."""
    if isinstance(value, Component):
        yield value
        yield from components_in(value.arguments)
    elif isinstance(value, dict):
        for item in value.values():
            yield from components_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from components_in(item)
