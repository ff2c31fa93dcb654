"""The two errors that a user meets: bad input, and weights that did not fit."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CoverageError", "InputError", "printable"]


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


def _rebuild(fault: str, path: str | Path | None, hint: str | None) -> InputError:
    return InputError(fault, path=path, hint=hint)


class CoverageError(RuntimeError):
    """Too few of a network's weights were found in a source; the network is left as it was."""
