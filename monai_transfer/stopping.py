"""Stopping on a signal: this process and all that it started end within seconds, and what is said about it is true.

SIGINT, SIGTERM and SIGHUP raise ``Stopped`` in the main thread. Where that thread does not come back from a long call
(an operation of torch, a decoder), a second thread ends the process after ``grace`` seconds: files are only ever
renamed into place when they are whole (``monai_transfer.files``), so this is safe. Either way the callbacks of
``at_stop`` run and child processes are ended first.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = [
    "Stopped",
    "at_signal",
    "at_stop",
    "deferred",
    "die_with_parent",
    "end_children",
    "install",
    "installed",
    "keeps",
    "kept",
    "leave",
    "leave_if_stopped",
    "stopped_by",
    "unprotected",
]

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end. A ``KeyboardInterrupt``: libraries let it pass and clean up on the way.

    >>> try:
    ...     raise Stopped
    ... except KeyboardInterrupt:
    ...     print("cleaned up")
    cleaned up
    """


_tokens = itertools.count()


class _State:
    signum: int | None = None
    grace = 3.0
    says = True
    deferring = 0
    leaving = threading.Lock()
    callbacks: dict[int, Callable[[], None]] = {}  # noqa: RUF012 - one process, one state
    at_once: dict[int, Callable[[], None]] = {}  # noqa: RUF012
    kept: str | Callable[[], str] = ""


def installed() -> bool:
    """Whether this process's signals are handled here."""
    return signal.getsignal(signal.SIGTERM) is _raise


def install(grace: float = 3.0, says: bool = True) -> None:
    """Handle the signals from now on; call it in the main thread.

    Args:
        grace: seconds after which the process ends even if its main thread is still busy.
        says: whether a line on standard error tells of it (worker processes are silent).
    """
    _State.grace, _State.says = grace, says
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # the C handler writes the number at once, also while the main thread is inside a long call
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in _SIGNALS:
        if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN:
            continue  # nohup
        signal.signal(number, _raise)
    threading.Thread(target=_watch, args=(reader,), name="stopping", daemon=True).start()


def _raise(signum: int, frame: FrameType | None) -> None:
    if _State.signum is not None:
        return  # said already; a second Ctrl-C changes nothing, the end is seconds away
    _State.signum = signum
    if _loads(frame):
        # an exception in the middle of a library's import leaves it half made, and within torch's compiler it aborts
        leave(signum)
    if not _State.deferring:
        raise Stopped(signal.Signals(signum).name)


def _loads(frame: FrameType | None) -> bool:
    """Whether the main thread is importing something."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextmanager
def deferred() -> Iterator[None]:
    """A signal that comes within the block raises ``Stopped`` at its end; the grace of ``install`` runs all the same.

    For the few lines that say how something ended.
    """
    before = _State.signum
    _State.deferring += 1
    try:
        yield
    finally:
        _State.deferring -= 1
    if before is None and _State.signum is not None and not _State.deferring:
        raise Stopped(signal.Signals(_State.signum).name)


def _watch(reader: int) -> None:
    while True:
        numbers = os.read(reader, 16)
        found = next((number for number in numbers if number in _SIGNALS), None)
        if found is not None:
            for callback in list(_State.at_once.values()):
                with contextlib.suppress(Exception):
                    callback()
            time.sleep(_State.grace)
            leave(found)


def stopped_by() -> int | None:
    """The signal that asked this process to end, if one did."""
    return _State.signum


def keeps(text: str | Callable[[], str]) -> None:
    """What is left when this command is stopped now, and what to do then: said after ``interrupted``."""
    _State.kept = text


def kept() -> str:
    """What ``keeps`` was told last."""
    try:
        return _State.kept() if callable(_State.kept) else _State.kept
    except Exception:  # the process is ending, and the files may be half there
        return ""


@contextmanager
def at_signal(callback: Callable[[], None]) -> Iterator[None]:
    """Call ``callback`` in another thread the moment a signal asks the process to end, wherever its main thread is."""
    token = next(_tokens)
    _State.at_once[token] = callback
    try:
        yield
    finally:
        _State.at_once.pop(token, None)


@contextmanager
def at_stop(callback: Callable[[], None]) -> Iterator[None]:
    """Call ``callback`` if the process is stopped within the block and the block's own clean-up cannot run."""
    token = next(_tokens)
    _State.callbacks[token] = callback
    try:
        yield
    finally:
        _State.callbacks.pop(token, None)


def leave_if_stopped() -> None:
    """End the process by the way of ``leave`` where a signal has asked for it."""
    if _State.signum is not None:
        leave(_State.signum)


def leave(signum: int) -> None:
    """End this process and all its children now: status 128 + the signal's number."""
    if not _State.leaving.acquire(blocking=False):
        time.sleep(60)  # the other thread is at it, and ends the process
    for callback in list(_State.callbacks.values()):
        with contextlib.suppress(Exception):
            callback()
    with contextlib.suppress(Exception):
        end_children()
    if _State.says:
        words = kept()
        name = signal.Signals(signum).name
        with contextlib.suppress(Exception):
            print(f"interrupted by {name}" + (f": {words}" if words else ""), file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    # past Python's own end, which would turn an interrupt that was seen inside an eval() into the signal itself, and
    # would wait for threads and worker processes
    os._exit(128 + signum)


def end_children(patience: float = 3.0) -> None:
    """Ask the processes that this one started to end, and kill those that have not after ``patience`` seconds."""
    import psutil

    try:
        children = psutil.Process().children(recursive=True)
    except psutil.Error:
        return
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.terminate()
    _, alive = psutil.wait_procs(children, timeout=patience)
    for child in alive:
        with contextlib.suppress(psutil.Error):
            child.kill()


def die_with_parent(parent: int) -> None:
    """Have this process end when process ``parent``, which started it, does: also when that one is killed.

    On Linux the kernel sends SIGTERM; elsewhere, and where the kernel's word does not come through (it is tied to the
    thread that started us), a thread looks once a second whether the parent has changed.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(1, int(signal.SIGTERM), 0, 0, 0)  # PR_SET_PDEATHSIG

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, name="parent", daemon=True).start()


@contextmanager
def unprotected() -> Iterator[None]:
    """For tests: the process's own handlers and state are put back after the block."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        _State.signum, _State.kept, _State.deferring = None, "", 0
