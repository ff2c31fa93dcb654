"""How much memory may still be taken: by the machine's word and, in a container, by its limit."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

__all__ = ["free_memory"]

_GROUPS = (  # limit and use of a container, of both versions of control groups
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)


def free_memory() -> int:
    """Bytes that new arrays could take.

    >>> free_memory() > 0
    True
    """
    free = int(psutil.virtual_memory().available)
    for limit, use, stat in _GROUPS:
        with contextlib.suppress(OSError, ValueError):
            most, taken = int(Path(limit).read_text()), int(Path(use).read_text())
            pairs = (line.split() for line in Path(stat).read_text().splitlines())
            cached = sum(int(value) for name, value in pairs if name in ("inactive_file", "total_inactive_file"))
            free = min(free, max(most - taken + cached, 0))
    return free
