"""The processes of one distributed training, seen without torch: which of them this is, and who has died."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Rank", "count", "first_ended", "own"]


@dataclass(frozen=True)
class Rank:
    """One process of the group: its number, its host, its process number and when that began, by its host's clock.

    >>> str(Rank(1, "elsewhere", 42, 0.0))
    'rank 1 (process 42)'
    """

    number: int
    host: str
    process: int
    began: float

    def __str__(self) -> str:
        return f"rank {self.number} (process {self.process})"

    @property
    def ended(self) -> bool:
        """Whether it is known to be dead; of a process on another host nothing is known."""
        if self.host != socket.gethostname():
            return False
        import psutil

        try:
            there = psutil.Process(self.process)
            return there.status() == psutil.STATUS_ZOMBIE or there.create_time() != self.began
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


def own(number: int) -> Rank:
    """This process, as the others of its group shall know it."""
    import psutil

    return Rank(number, socket.gethostname(), os.getpid(), psutil.Process().create_time())


def count() -> tuple[int, int]:
    """The number of this process and how many there are, as ``torchrun`` says in the environment; ``(0, 1)`` alone."""
    with contextlib.suppress(KeyError, ValueError):
        number, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        if "MASTER_ADDR" in os.environ and 0 <= number < size:
            return number, size
    return 0, 1


def first_ended(ranks: Sequence[Rank], patience: float = 0.0) -> Rank | None:
    """The first of ``ranks`` that is dead, looked for during ``patience`` seconds: a killed one still falls apart."""
    until = time.monotonic() + patience
    while True:
        found = next((rank for rank in ranks if rank.ended), None)
        if found is not None or time.monotonic() >= until:
            return found
        time.sleep(0.05)
