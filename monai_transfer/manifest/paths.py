"""How a manifest names files: relative to its own folder where that is sensible, so that both can be moved together."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["absolute", "portable"]


def absolute(path: str | Path, base: str | Path) -> str:
    """``path`` seen from ``base``, absolute; normalised as text, as MONAI joins it (links are not followed)."""
    return os.path.abspath(os.path.join(base, path))  # noqa: PTH100, PTH118 - Path.resolve would follow links


def portable(path: str | Path, base: str | Path) -> str:
    """``path`` relative to the folder ``base``, with ``/``; absolute where they share only the file system's root."""
    path, base = os.path.abspath(path), os.path.abspath(base)  # noqa: PTH100
    try:
        common = os.path.commonpath([path, base])
    except ValueError:  # other drives
        return Path(path).as_posix()
    if common == Path(common).anchor:
        return Path(path).as_posix()
    return Path(os.path.relpath(path, base)).as_posix()
