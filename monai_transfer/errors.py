"""The two errors that a user meets (bad input, weights that did not fit), and what to say of any other."""

from __future__ import annotations

import dataclasses
import difflib
import errno
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "CoverageError",
    "InputError",
    "OutputError",
    "closest",
    "describe",
    "first_cause",
    "is_out_of_memory",
    "printable",
    "replace_fields",
]

T = TypeVar("T")


class InputError(ValueError):
    """Something that the user gave is wrong; the command line turns it into one line and exit code 2.

    Args:
        fault: what is wrong, in one clause.
        path: the file or folder concerned, if there is one; stands first in the message.
        hint: what to do about it, in one clause.

    >>> InputError("holds 3 channels", path="scan.png", hint="read it with mode='grey'")
    InputError("scan.png: holds 3 channels; read it with mode='grey'")
    """

    def __init__(self, fault: str, *, path: str | Path | None = None, hint: str | None = None) -> None:
        self.fault, self.path, self.hint = fault, path, hint
        text = f"{printable(path)}: {fault}" if path is not None else fault
        super().__init__(f"{text}; {hint}" if hint else text)

    def __reduce__(self):  # keyword-only arguments: pickling (worker processes) needs them named
        return _rebuild, (type(self), self.fault, self.path, self.hint)


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


def replace_fields(options: T, changes: Mapping[str, Any], function: str) -> T:
    """A dataclass of options with single fields changed, as ``dataclasses.replace``.

    Args:
        options: an instance.
        changes: values by the name of the field.
        function: the name of what was called, for the error.

    Raises:
        InputError: a field is unknown.

    >>> Options = dataclasses.make_dataclass("Options", [("epochs", int, 20)])
    >>> replace_fields(Options(), {"epochs": 5}, "new_bundle")
    Options(epochs=5)
    """
    known = [each.name for each in dataclasses.fields(options)]  # type: ignore[arg-type]
    for name in changes:
        if name not in known:
            raise InputError(f"{function} has no option {name!r}", hint=closest(name, known))
    return dataclasses.replace(options, **changes)  # type: ignore[type-var]


def _rebuild(kind: type[InputError], fault: str, path: str | Path | None, hint: str | None) -> InputError:
    return kind(fault, path=path, hint=hint)


class OutputError(InputError):
    """Something cannot be written where the user wants it: a full disk, a quota, a folder that is not theirs.

    >>> str(OutputError("cannot be written: the disk is full", path="run/metrics.csv", hint="free some space"))
    'run/metrics.csv: cannot be written: the disk is full; free some space'
    """


class CoverageError(RuntimeError):
    """Too few of a network's weights were found in a source; the network is left as it was.

    >>> describe(CoverageError("12 of 300 tensors were found"))
    '12 of 300 tensors were found'
    """


def first_cause(error: BaseException) -> BaseException:
    """The user's error inside what MONAI wrapped around it (instantiation, transforms), else the innermost cause."""
    seen: BaseException | None = error
    while seen is not None:
        # by name: importing the engine takes seconds
        if isinstance(seen, (InputError, CoverageError)) or type(seen).__name__ == "NonFiniteLossError":
            return seen
        seen = seen.__cause__ or seen.__context__
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the CPU or the GPU, somewhere in the chain of an error's causes."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError) or type(seen).__name__ == "OutOfMemoryError":
            return True
        if isinstance(seen, OSError) and seen.errno == errno.ENOMEM:
            return True
        text = str(seen)
        if isinstance(seen, RuntimeError) and any(words in text for words in _NO_MEMORY):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


_NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "could not create a memory object")


def describe(error: BaseException) -> str:
    """An error in one line: the user's own as it is, any other with its kind."""
    cause = first_cause(error)
    if isinstance(cause, (InputError, CoverageError)):
        return str(cause)
    first = (str(cause).strip().splitlines() or [""])[0]
    if is_out_of_memory(error):
        return f"out of memory ({first})" if first else "out of memory"
    if type(cause).__name__ == "NonFiniteLossError":
        return first
    return f"{type(cause).__name__}: {first}" if first else type(cause).__name__
