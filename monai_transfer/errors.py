"""The two errors that a user meets: bad input, and weights that did not fit."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CoverageError", "InputError", "printable"]


class InputError(ValueError):
    """Something that the user gave is wrong; the command line turns it into one line and exit code 2.

    Args:
        fault: what is wrong, in one clause.
        path: the file or folder concerned, if there is one; stands first in the message.
        mend: what to do about it, in one clause.
    """

    def __init__(self, fault: str, *, path: str | Path | None = None, mend: str | None = None) -> None:
        self.fault, self.path, self.mend = fault, path, mend
        text = f"{printable(path)}: {fault}" if path is not None else fault
        super().__init__(f"{text}; {mend}" if mend else text)

    def __reduce__(self):  # keyword-only arguments: pickling (worker processes) needs them named
        return _rebuild, (self.fault, self.path, self.mend)


def printable(path: str | Path) -> str:
    """A path on one line that any terminal takes: control characters and undecodable bytes are escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))


def _rebuild(fault: str, path: str | Path | None, mend: str | None) -> InputError:
    return InputError(fault, path=path, mend=mend)


class CoverageError(RuntimeError):
    """Too few of a network's weights were found in a source; the network is left as it was."""
