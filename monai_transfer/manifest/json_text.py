"""Reading JSON strictly: no key twice in one object, no NaN or Infinity, one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_transfer import safe_parse

__all__ = ["read_json"]


def read_json(path: Path, hint: str) -> Any:
    """The content of a JSON file in UTF-8.

    Args:
        path: the file.
        hint: what to give instead, for the error.

    Raises:
        InputError: it is not JSON, holds a key twice in one object, or a number that JSON does not have.
    """
    return safe_parse.read_json(path, strict=True, hint=hint)
