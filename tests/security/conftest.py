"""Nobody asks the network, nothing runs for ever, and the working directory is empty."""

from __future__ import annotations

import signal
import socket
import threading
import warnings

import pytest

SECONDS = 20
"""Of processor time for one door; the slowest honest command takes three."""
WAITING = 15
"""Times as long by the clock, on a machine that does other things: for what hangs without computing."""


class TooLong(BaseException):
    """Passes every ``except Exception`` of the commands."""


@pytest.fixture(autouse=True)
def _guarded(monkeypatch, tmp_path, request):
    if "tmp_path_factory" in request.fixturenames and "tmp_path" not in request.node.fixturenames:
        yield
        return

    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was asked")

    def too_long(*_args):
        raise TooLong(f"more than {seconds} s")

    seconds = SECONDS * (6 if request.node.get_closest_marker("slow") else 1)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    warnings.simplefilter("ignore")
    guarded = threading.current_thread() is threading.main_thread()
    if guarded:
        before = {number: signal.signal(number, too_long) for number in (signal.SIGPROF, signal.SIGALRM)}
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.alarm(seconds * WAITING)
    yield
    if guarded:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
