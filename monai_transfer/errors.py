"""The two errors that a user meets: bad input, and weights that did not fit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["CoverageError", "InputError", "closest", "printable"]


class InputError(ValueError):
    """Something that the user gave is wrong; the command line turns it into one line and exit code 2.

    Args:
        fault: what is wrong, in one clause.
        path: the file or folder concerned, if there is one; stands first in the message.
        hint: what to do about it, in one clause.
    """

    def __init__(self, fault: str, *, path: str | Path | None = None, hint: str | None = None) -> None:
        self.fault, self.path, self.hint = fault, path, hint
        text = f"{printable(path)}: {fault}" if path is not None else fault
        super().__init__(f"{text}; {hint}" if hint else text)

    def __reduce__(self):  # keyword-only arguments: pickling (worker processes) needs them named
        return _rebuild, (self.fault, self.path, self.hint)


def printable(path: str | Path) -> str:
    """A path on one line that any terminal takes: control characters and undecodable bytes are escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))


def closest(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` where a known word is near, else ``known: a, b, c``.

    >>> closest("dise", ["dice", "hd95"])
    "did you mean 'dice'?"
    """
    names = sorted(known)
    lowered = {name.lower(): name for name in reversed(names)}
    near = difflib.get_close_matches(word.lower(), lowered, n=1)
    if near:
        return f"did you mean {lowered[near[0]]!r}?"
    shown = ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
    return f"known: {shown}" if names else "none is known"


def _rebuild(fault: str, path: str | Path | None, hint: str | None) -> InputError:
    return InputError(fault, path=path, hint=hint)


class CoverageError(RuntimeError):
    """Too few of a network's weights were found in a source; the network is left as it was."""
