"""JSON and YAML of others, read as plain data within limits: no tags that make objects, no bombs, one clear refusal.

Every file that may come from somebody else (bundles, manifests, run folders, BIDS and nnU-Net descriptions) is parsed
here. A file beyond a limit is refused within about a second, before much of it is in memory.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from monai_transfer.errors import InputError, printable

__all__ = [
    "MAX_CONFIG_BYTES", "MAX_DEPTH", "MAX_JSON_BYTES", "MAX_JSON_NODES", "MAX_NUMBER_LENGTH", "MAX_YAML_NODES",
    "config_file", "parse_json", "parse_yaml", "read_config", "read_json", "read_mapping",
]  # fmt: skip

MAX_JSON_BYTES = 64 << 20
"""Of a JSON file: a manifest of 100,000 cases has some 30 MB, and 64 MiB of brackets take less than 2 GiB."""
MAX_JSON_NODES = 8_000_000
"""Lists, objects and members in a JSON file: 100,000 cases have 1 to 2 million."""
MAX_CONFIG_BYTES = 4 << 20
"""Of a YAML file or a bundle's config: the largest in the model zoo has 60 kB, a merged one some 100 kB."""
MAX_YAML_NODES = 100_000
"""Values in a YAML file with every alias written out: ten lines of aliases to aliases mean billions of values."""
MAX_DEPTH = 100
"""Levels of nesting: configs have about ten; code that walks data by recursion stops at about a thousand."""
MAX_NUMBER_LENGTH = 100
"""Characters of one number: reading a number takes time with the square of its length."""

_SMALLER = "open only the files of authors that you trust, or ask for a smaller one"
_DAMAGED = "copy or export the file again"
_LONG_NUMBER = re.compile(
    rf"(?<![\w.])[-+]?(?:\d[0-9_:.]{{{MAX_NUMBER_LENGTH},}}|0[xXbBoO][0-9a-fA-F_]{{{MAX_NUMBER_LENGTH},}})"
)


def config_file(folder: str | Path, *names: str) -> Path | None:
    """The first of ``configs/<name>.yaml|yml|json`` that is there.

    Whatever reads, judges or runs a config asks here: of two files of one name all must take the same.

    Args:
        folder: a bundle.
        names: of configs, in the order of preference.

    >>> import tempfile
    >>> bundle = Path(tempfile.mkdtemp())
    >>> (bundle / "configs").mkdir()
    >>> for name in ("train.json", "inference.json", "inference.yaml"):
    ...     _ = (bundle / "configs" / name).write_text("{}")
    >>> config_file(bundle, "inference").name, config_file(bundle, "train").name, config_file(bundle, "other")
    ('inference.yaml', 'train.json', None)
    """
    paths = (Path(folder) / "configs" / f"{name}.{end}" for name in names for end in ("yaml", "yml", "json"))
    return next((path for path in paths if path.is_file()), None)


def read_json(
    path: str | Path, *, max_bytes: int = MAX_JSON_BYTES, strict: bool = False, hint: str | None = None
) -> Any:
    """The content of a JSON file.

    Args:
        path: the file, UTF-8.
        max_bytes: its largest size.
        strict: refuse a key twice in one object, and numbers that JSON does not have (NaN, Infinity).
        hint: what to give instead of a file that is no JSON.

    Raises:
        InputError: it is not there, not JSON, or beyond a limit.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "a.json"
    >>> _ = file.write_text('{"a": [1, 2]}')
    >>> read_json(file)
    {'a': [1, 2]}
    """
    return parse_json(_text(Path(path), max_bytes), path, strict=strict, hint=hint)


def read_config(path: str | Path) -> Any:
    """The content of a YAML or JSON file (``.json`` is read as JSON, all else as YAML).

    Raises:
        InputError: it is not there, cannot be read, or is beyond a limit.
    """
    path = Path(path)
    text = _text(path, MAX_CONFIG_BYTES)
    return parse_json(text, path) if path.suffix.lower() == ".json" else parse_yaml(text, path)


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The content of a YAML or JSON file that must hold entries by name.

    Raises:
        InputError: as ``read_config``; or it holds something else, or an id that is no text.
    """
    content = read_config(path)
    if not isinstance(content, dict):
        raise InputError("holds no entries by name", path=path, hint="see MONAI's bundle specification")
    odd = next((key for key in content if not isinstance(key, str)), None)
    if odd is not None or None in content:
        raise InputError(f"has an id that is no text ({odd!r})", path=path, hint="write it in quotation marks")
    return content


def parse_json(text: str, path: str | Path | None = None, *, strict: bool = False, hint: str | None = None) -> Any:
    """JSON text as data; ``path`` is for messages. See ``read_json``.

    Raises:
        InputError: it is no JSON, or beyond a limit.
    """
    if text.count("[") + text.count("{") + text.count(",") > MAX_JSON_NODES:
        raise InputError(f"holds more than {MAX_JSON_NODES:,} values", path=path, hint=_SMALLER)
    _refuse_long_numbers(text, path)
    try:
        content = json.loads(
            text,
            object_pairs_hook=_no_repeats if strict else None,
            parse_constant=_no_constant if strict else None,
        )
    except _Fault as error:
        raise InputError(error.args[0], path=path, hint=error.args[1]) from None
    except RecursionError:
        raise InputError(f"is nested more than {MAX_DEPTH} levels deep", path=path, hint=_SMALLER) from None
    except ValueError as error:
        raise InputError(f"is not JSON ({_first_line(error)})", path=path, hint=hint or _DAMAGED) from None
    _refuse_depth(content, path)
    return content


def parse_yaml(text: str, path: str | Path | None = None) -> Any:
    """YAML text as plain data; ``path`` is for messages.

    Raises:
        InputError: it is no YAML, names Python objects, or is beyond a limit.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    _refuse_long_numbers(text, path)
    try:
        _refuse_bombs(text, loader, path)
        return yaml.load(text, Loader=loader)  # noqa: S506  (a safe loader)
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"is no readable YAML ({_first_line(error)})", path=path, hint=_DAMAGED) from None


class _Fault(Exception):
    pass


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = sorted(name for name, _ in pairs)
        twice = next(a for a, b in zip(names, names[1:], strict=False) if a == b)
        raise _Fault(f"holds the key {twice!r} twice in one object", "keep one of the two")
    return content


def _no_constant(name: str) -> Any:
    raise _Fault(f"holds {name}, which is not JSON", "write null where a value is missing")


def _text(path: Path, max_bytes: int) -> str:
    if path.is_dir():
        raise InputError("is a folder, not a file", path=path, hint="name the file in it")
    if not path.exists():
        raise InputError("there is no such file", path=path, hint="check the path")
    if not path.is_file():
        raise InputError("is no ordinary file", path=path, hint="name a file")
    try:
        with path.open("rb") as stream:
            content = stream.read(min(max_bytes, path.stat().st_size) + 1)  # as many bytes are laid ready
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path, hint="check its permissions") from error
    if len(content) > max_bytes:
        raise InputError(f"is larger than {max_bytes >> 20} MiB", path=path, hint=_SMALLER)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        hint = "save it again with the encoding UTF-8"
        raise InputError(f"is no UTF-8 text ({error.reason} at byte {error.start})", path=path, hint=hint) from None


def _refuse_long_numbers(text: str, path: str | Path | None) -> None:
    if _LONG_NUMBER.search(text):
        fault = f"holds a number of more than {MAX_NUMBER_LENGTH} digits"
        raise InputError(fault, path=path, hint="shorten it; checksums belong in quotes and hold letters")


def _refuse_depth(content: Any, path: str | Path | None) -> None:
    level, depth = [content], 0
    while level := [node for node in level if isinstance(node, (dict, list))]:
        depth += 1
        if depth > MAX_DEPTH:
            raise InputError(f"is nested more than {MAX_DEPTH} levels deep", path=path, hint=_SMALLER)
        level = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]


def _refuse_bombs(text: str, loader: Any, path: str | Path | None) -> None:
    """Count values with aliases written out, and levels, before anything is built."""
    total, finished = 0, {}
    open_: list[tuple[str | None, int]] = []  # anchor and count at the start of each open collection
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            open_.append((event.anchor, total))
            total += 1
            if len(open_) > MAX_DEPTH:
                raise InputError(f"is nested more than {MAX_DEPTH} levels deep", path=path, hint=_SMALLER)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            anchor, before = open_.pop()
            if anchor is not None:
                finished[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                finished[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in finished:
                fault = f"refers to {event.anchor!r} inside itself or before it is there"
                raise InputError(fault, path=path, hint="write the value out")
            total += finished[event.anchor]
        if total > MAX_YAML_NODES:
            fault = f"holds more than {MAX_YAML_NODES:,} values, aliases written out"
            raise InputError(fault, path=path, hint=_SMALLER)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable((lines[0] if lines else type(error).__name__)[:160])
