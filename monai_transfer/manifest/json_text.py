"""Reading JSON strictly: no key twice in one object, no NaN or Infinity, one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError

__all__ = ["read_json"]


def read_json(path: Path, hint: str) -> Any:
    """The content of a JSON file in UTF-8.

    Args:
        path: the file.
        hint: what to give instead, for the error.

    Raises:
        InputError: it is not JSON, holds a key twice in one object, or a number that JSON does not have.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    except _Fault as error:
        raise InputError(error.args[0], path=path, hint=error.args[1]) from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"is not JSON ({error})", path=path, hint=hint) from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path, hint=hint) from None


class _Fault(Exception):
    pass


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(n for n in names if names.count(n) > 1)
        raise _Fault(f"holds the key {twice!r} twice in one object", "keep one of the two")
    return content


def _no_constant(name: str) -> Any:
    raise _Fault(f"holds {name}, which is not JSON", "write null where a value is missing")
