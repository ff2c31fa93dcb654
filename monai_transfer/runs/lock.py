"""A lock on a folder while it is written to, which a dead writer cannot keep.

``<folder>/.lock`` names the host, the process and since when; a thread touches it every half minute. On one machine the
kernel holds the lock (``flock``) and drops it with the process, however that ends. A writer on another host, of which
the kernel may not know, counts as dead after ten minutes without a sign.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from monai_transfer.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK_NAME", "FolderLock", "Holder", "holder"]

LOCK_NAME = ".lock"
STALE = 600.0
"""Seconds without a sign after which a writer on another host counts as dead."""

_BEAT = 30.0
_HELD: dict[str, FolderLock] = {}


@dataclass(frozen=True)
class Holder:
    """Who writes in a folder: host, process, and seconds since its last sign of life."""

    host: str
    process: int
    silent: float

    def __str__(self) -> str:
        place = "this machine" if self.host == socket.gethostname() else f"host {self.host}"
        return f"process {self.process} on {place}"


class FolderLock:
    """Held from ``acquire`` to ``release``; taken over from an earlier lock of the same process on the same folder.

    Args:
        folder: is made where it is missing.

    >>> import tempfile
    >>> lock = FolderLock(tempfile.mkdtemp()).acquire()
    >>> lock.held
    True
    >>> lock.release()
    >>> lock.held
    False
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / LOCK_NAME
        self._file: int | None = None
        self._done = threading.Event()

    @property
    def held(self) -> bool:
        """Whether this object holds it."""
        return self._file is not None

    def acquire(self) -> FolderLock:
        """Take the lock.

        Raises:
            InputError: another process writes in the folder (names it), or the folder cannot be written to.
        """
        key = str(self.folder.resolve())
        mine = _HELD.get(key)
        if mine is not None and mine.held:
            if mine is not self:
                self._file, mine._file = mine._file, None
                mine._done.set()
                self._start(key)
            return self
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while True:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    self._refuse(file)
                    same = os.fstat(file).st_ino == self.path.stat().st_ino
                except FileNotFoundError:
                    same = False
                except BaseException:
                    os.close(file)
                    raise
                if same:
                    break
                os.close(file)  # it was released, and its file deleted, between opening and locking
        except OSError as error:
            raise InputError(
                f"cannot be written to ({error.strerror})",
                path=self.folder,
                hint="name another folder with --output_dir, or change its permissions",
            ) from error
        self._file = file
        content = {"host": socket.gethostname(), "process": os.getpid(), "since": time.time()}
        with contextlib.suppress(OSError):  # a full disk: the kernel's lock holds all the same
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(content).encode(), 0)
        self._start(key)
        return self

    def _refuse(self, file: int) -> None:
        other = _other(file, self.path, exclusive=True)
        if other is not None:
            hint = "wait for it, stop it, or name another folder"
            if other.host != socket.gethostname():
                hint += f"; its last sign of life is {other.silent:.0f} s old, after {STALE:.0f} s it counts as dead"
            raise InputError(f"is being written by {other}", path=self.folder, hint=hint)

    def _start(self, key: str) -> None:
        self._done = threading.Event()
        _HELD[key] = self
        threading.Thread(target=self._beat, args=(self._done,), name="heartbeat", daemon=True).start()

    def _beat(self, done: threading.Event) -> None:
        while not done.wait(_BEAT):
            with contextlib.suppress(OSError, TypeError):
                os.utime(self._file)  # type: ignore[arg-type]

    def release(self) -> None:
        """Give it back; nothing happens where it is not held."""
        if self._file is None:
            return
        file, self._file = self._file, None
        self._done.set()
        for key in [key for key, lock in _HELD.items() if lock is self]:
            del _HELD[key]
        with contextlib.suppress(OSError):
            if os.fstat(file).st_ino == self.path.stat().st_ino:
                self.path.unlink()
        os.close(file)

    def __enter__(self) -> FolderLock:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def holder(folder: str | Path) -> Holder | None:
    """Who writes in ``folder`` now (this process too), or ``None``."""
    path = Path(folder) / LOCK_NAME
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return _other(file, path, exclusive=False)
    finally:
        os.close(file)  # drops the shared lock


def _other(file: int, path: Path, *, exclusive: bool) -> Holder | None:
    """The living holder of an open lock file; ``None``, with the file locked, where there is none."""
    taken = _lock(file, exclusive)
    try:
        content = json.loads(os.pread(file, 4096, 0))
        told = Holder(str(content["host"]), int(content["process"]), max(0.0, _now(path) - os.fstat(file).st_mtime))
    except (ValueError, KeyError, TypeError):
        told = None
    if taken is False:
        return told or Holder(socket.gethostname(), 0, 0.0)
    if told is None:
        return None
    if told.host != socket.gethostname():
        return told if told.silent < STALE else None
    if taken is None:  # no locks on this file system: the process's number has to do
        import psutil

        with contextlib.suppress(psutil.Error):
            alive = psutil.Process(told.process)
            if alive.create_time() <= os.fstat(file).st_mtime and alive.status() != psutil.STATUS_ZOMBIE:
                return told
    return None


def _lock(file: int, exclusive: bool) -> bool | None:
    """Whether the kernel gave the lock; ``None`` where it has none to give."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _now(path: Path) -> float:
    """The time by the clock that stamps the lock's folder: on a network share that is not ours."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as stream:
            return os.fstat(stream.fileno()).st_mtime
    except OSError:
        return time.time()


def _close_in_child() -> None:
    """A forked worker of a data loader must not keep the lock of a parent that has died."""
    for lock in list(_HELD.values()):
        if lock._file is not None:
            with contextlib.suppress(OSError):
                os.close(lock._file)
            lock._file = None
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
