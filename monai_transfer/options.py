"""What several commands share: arguments, lists as they are typed, and what can be refused before MONAI is imported.

Everything here is light: importing torch and MONAI takes seconds, and a wrong word should not wait for them.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from monai_transfer.errors import InputError

__all__ = [
    "given_paths",
    "BundleFolder",
    "RunFolder",
    "TrustSource",
    "announce",
    "begins_with",
    "byte_count",
    "number_list",
    "require",
    "require_name",
    "require_run",
    "whole_number_list",
]

BundleFolder = Annotated[Path, typer.Argument(help="Bundle folder.")]
TrustSource = Annotated[
    bool,
    typer.Option(
        "--trust-source",
        help="Run the bundle's own code where it cannot be read without; remembered until a file of it changes.",
    ),
]
RunFolder = Annotated[Path | None, typer.Option(help="The run whose best weights to use; default the bundle's.")]


def number_list(text: str | None, option: str) -> list[float] | None:
    """``1,1,3`` as numbers; ``None`` stays.

    Args:
        text: as given.
        option: named in the error.

    Raises:
        InputError: it is no list of numbers.

    >>> number_list("1,1,2.5", "--spacing")
    [1.0, 1.0, 2.5]
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text!r} is not a list of numbers", hint=f"write it like {option} 1,1,3") from None


def whole_number_list(text: str | None, option: str) -> list[int] | None:
    """``64,64,32`` as whole numbers; ``None`` stays.

    Args:
        text: as given.
        option: named in the error.

    Raises:
        InputError: it is no list of whole numbers.

    >>> whole_number_list("64,64,32", "--patch")
    [64, 64, 32]
    """
    values = number_list(text, option)
    if values is not None and any(value != int(value) for value in values):
        raise InputError(f"{option} {text!r} is not a list of whole numbers", hint=f"write it like {option} 64,64,32")
    return None if values is None else [int(value) for value in values]


def byte_count(text: str, option: str) -> int:
    """``8GiB``, ``500 MB`` or a bare number of bytes.

    Raises:
        InputError: it is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if found is None or float(found[1]) <= 0:
        raise InputError(f"{option} {text!r} is no size", hint=f"write it like {option} 8GiB")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2].upper() or " "))


def require(*paths: str | Path | None) -> None:
    """Refuse a path that does not exist; ``None`` was not given.

    Raises:
        InputError: names the first one.
    """
    for path in paths:
        if path is not None and not Path(path).exists():
            raise InputError("no such file or folder", path=path, hint="look at its spelling and the working directory")


def given_paths(overrides: Mapping[str, Any]) -> list[str]:
    """The overrides that name files or folders which must be there, as plain text (not as an expression)."""
    values = [overrides.get(key) for key in ("manifest", "dataset_dir", "pretrained", "ckpt")]
    return [value for value in values if isinstance(value, str) and value and value[0] not in "$@%"]


def require_run(path: str | Path) -> None:
    """Refuse what holds no run: neither a run folder nor a folder of run folders.

    Raises:
        InputError: names it.
    """
    require(path)
    if not (Path(path) / "run.json").is_file() and not any(Path(path).glob("*/run.json")):
        raise InputError("holds no run", path=path, hint="name run folders, or a folder of them")


def require_name(name: str, known: Iterable[str], word: str) -> None:
    """Refuse a name that is not among ``known``; a full path of a class (with dots) is looked up later.

    Raises:
        InputError: with the nearest known name.
    """
    names = sorted(known)
    if "." in name or name in names:
        return
    near = difflib.get_close_matches(name, names, n=1)
    raise InputError(f"no {word} {name!r}", hint=f"did you mean {near[0]}?" if near else f"one of {', '.join(names)}")


def begins_with(names: Iterable[str]) -> Callable[[str], list[str]]:
    """For the shell's completion: the names that begin with what was typed; of a list, its last part."""
    known = list(names)

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in known if name.startswith(last)]

    return complete


def announce(text: str, *, quiet: bool = False, err: bool = False) -> None:
    """Say what is being done, before imports that take seconds.

    Args:
        text: one line.
        quiet: say nothing: where JSON is printed.
        err: on standard error, for a command whose standard output is a list that others read.
    """
    if not quiet:
        print(text, file=sys.stderr if err else sys.stdout, flush=True)
