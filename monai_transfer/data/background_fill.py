"""Filling a cache of cases: at once where it is quick, behind the training where it is not, and no more than fits.

A few seconds are waited for it with all threads, so that small sets start filled and their faults are told before the
training. Of a large set the rest is prepared by one thread while the training runs; a case that it asks for before is
prepared on the spot. Cases that memory cannot hold are prepared anew each time, and it is said what would help.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from tqdm import tqdm

from monai_transfer.free_memory import free_memory

__all__ = ["BackgroundFill", "byte_size"]

logger = logging.getLogger("monai_transfer")
_MIB, _GIB = 2**20, 2**30
_alive: weakref.WeakSet[BackgroundFill] = weakref.WeakSet()


class BackgroundFill:
    """Fills ``slots`` with what ``load`` gives for their numbers.

    Args:
        load: prepares one case; called from threads.
        slots: a list of ``None``, filled in place.
        patience: seconds to wait for it; what is left then is done behind.
        workers: threads while it is waited for; by default one per processor.
        limit: bytes that the cases may take; by default half of what is free.
        name: of the set, in what is logged.

    Attributes:
        fault: number and error of the first case that could not be prepared.
        full: whether memory was not enough for all.

    >>> slots = [None, None, None]
    >>> fill = BackgroundFill(lambda number: number**2, slots)
    >>> fill.start()
    >>> slots
    [0, 1, 4]
    """

    # without a __dict__: MONAI's `set_rnd` walks through whatever hangs on a dataset, to seed it
    __slots__ = (
        *("__weakref__", "_behind", "_busy", "_end", "_lock", "_stop", "_threads", "_todo", "fault", "full", "held"),
        *("kept", "limit", "load", "name", "patience", "slots"),
    )

    def __init__(
        self,
        load: Callable[[int], Any],
        slots: list[Any],
        patience: float = 10.0,
        workers: int | None = None,
        limit: int | None = None,
        name: str = "preprocessing",
    ) -> None:
        self.load, self.slots, self.patience, self.name = load, slots, patience, name
        self.limit = free_memory() // 2 if limit is None else limit
        self.fault: tuple[int, Exception] | None = None
        self.full = False
        self.held = self.kept = 0
        self._todo: Iterator[int] = iter(range(len(slots)))
        self._lock, self._busy = threading.Lock(), threading.Lock()
        self._stop, self._behind = threading.Event(), False
        count = min(workers or os.cpu_count() or 1, len(slots))
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(count)]
        self._end = weakref.finalize(self, _join, self._stop, self._threads)  # also when Python ends
        _alive.add(self)

    def start(self) -> None:
        """Fill for ``patience`` seconds, or until all is there.

        Raises:
            Exception: what the first case that could not be prepared raised, once no thread is at work.
        """
        since = time.monotonic()
        for thread in self._threads:
            thread.start()
        bar = tqdm(total=len(self.slots), desc=self.name, disable=not sys.stderr.isatty(), leave=False)
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() - since < self.patience:
            self._threads[0].join(0.05)
            if not self._threads[0].is_alive():
                for thread in self._threads:
                    thread.join(0.05)
            bar.n = self.kept
            expected = self.held / max(self.kept, 1) * len(self.slots) / _GIB
            bar.set_postfix_str(f"{expected:.1f} GiB in all", refresh=False)
            bar.refresh()
        bar.close()
        self._behind = any(thread.is_alive() for thread in self._threads)
        if self._behind and self.fault is None:
            each = self.held / max(self.kept, 1)
            logger.info(
                "%s goes on behind the training: %d of %d cases are ready, %.1f MiB each; all take about %.1f GiB, and "
                "%.1f GiB may be held",
                self.name, self.kept, len(self.slots), each / _MIB, each * len(self.slots) / _GIB, self.limit / _GIB,
            )  # fmt: skip
        self.check()

    def check(self) -> None:
        """Raise the fault of a case that was prepared behind, if there is one.

        Raises:
            Exception: what preparing it raised.
        """
        if self.fault is not None:
            self.stop()
            raise self.fault[1]

    def stop(self) -> None:
        """End the threads after the cases that they are at."""
        self._end()

    def put(self, number: int, case: Any) -> None:
        """Keep a case, where memory allows it."""
        size = byte_size(case)
        with self._lock:
            if self.slots[number] is not None:
                return
            if self.held + size > self.limit:
                if not self.full:
                    logger.warning(
                        "%s: memory holds %d of %d cases (%.1f GiB); the others are prepared anew each time they are "
                        "drawn: give a folder with --cache_dir, or more memory",
                        self.name, self.kept, len(self.slots), self.held / _GIB,
                    )  # fmt: skip
                self.full = True
                return
            self.held += size
            self.kept += 1
            self.slots[number] = case

    def _work(self, thread: int) -> None:
        while not (self._stop.is_set() or self.full or self.fault or (self._behind and thread > 0)):
            with self._lock:
                number = next(self._todo, None)
            if number is None:
                break
            if self.slots[number] is not None:
                continue
            try:
                if self._behind:
                    with self._busy:  # no process is forked while a case is prepared
                        case = self.load(number)
                else:
                    case = self.load(number)
            except Exception as error:
                with self._lock:
                    if self.fault is None or number < self.fault[0]:
                        self.fault = (number, error)
                return
            self.put(number, case)
        if self._behind and thread == 0 and not self._stop.is_set() and not self.full:
            logger.info("%s: all %d cases are ready", self.name, self.kept)


def _join(stop: threading.Event, threads: list[threading.Thread]) -> None:
    """A thread that still computes in C++ when Python ends would abort the process."""
    stop.set()
    for thread in threads:
        if thread.is_alive() and thread is not threading.current_thread():
            thread.join()


def byte_size(case: Any) -> int:
    """Bytes of the tensors and arrays in a case.

    Args:
        case: dictionaries and lists of tensors, arrays and whatever else, which counts 0.

    >>> byte_size({"image": torch.zeros(1, 10, 10), "label": [torch.zeros(2)], "case": "c1"})
    408
    """
    if isinstance(case, dict):
        return sum(map(byte_size, case.values()))
    if isinstance(case, (list, tuple)):
        return sum(map(byte_size, case))
    if isinstance(case, torch.Tensor):
        return case.numel() * case.element_size()
    return int(getattr(case, "nbytes", 0))


def _before_fork() -> None:
    for fill in list(_alive):
        fill._busy.acquire()
        fill._lock.acquire()


def _after_fork() -> None:
    for fill in list(_alive):
        for lock in (fill._lock, fill._busy):
            if lock.locked():
                lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
