"""Where a component's class lies, for records that must name it."""

from __future__ import annotations

__all__ = ["class_path"]


def class_path(thing: object) -> str:
    """The full path of an object's class.

    Args:
        thing: any object.

    >>> from pathlib import PurePosixPath
    >>> class_path(PurePosixPath("a"))
    'pathlib.PurePosixPath'
    """
    return f"{type(thing).__module__}.{type(thing).__name__}"
