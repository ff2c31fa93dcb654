"""Runs of bundles' workflows in worker processes: some at a time, one failing alone, all ending with this process.

Each run is a run folder of its own, so what was interrupted continues and what is finished is kept.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from rich.console import Console

from monai_transfer.errors import InputError
from monai_transfer.runs.record import mark, read_status
from monai_transfer.study.board import Board
from monai_transfer.study.jobs import Job, refuse_changed
from monai_transfer.study.worker import serve

__all__ = ["Job", "Workers", "first_line", "refuse_failed", "run_jobs", "workers"]

_TRACKER = "ignore:resource_tracker:UserWarning"
"""Of a killed worker Python's tracker tells what it leaves, and clears it: nothing that anybody has to know."""


class _Worker:
    """One process and our end of the pipe to it."""

    def __init__(self) -> None:
        if _TRACKER not in sys.warnoptions:
            sys.warnoptions.append(_TRACKER)  # handed to the processes that are started from here
        # spawned, not forked: torch's threads do not survive a fork
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, os.getpid()), name="study-worker")
        self.process.start()
        theirs.close()

    def end(self) -> str:
        """Close the pipe, wait for the process, and say how it ended."""
        self.connection.close()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code = self.process.exitcode or 0
        if code == -signal.SIGKILL:
            return (
                "its process was killed, as the system does where memory runs out: use fewer --jobs or smaller batches"
            )
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        return f"its process ended {how}"


class Workers:
    """Up to ``count`` worker processes, started when there is work: one takes seconds to import torch and MONAI."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.idle: list[_Worker] = []
        self.busy: dict[_Worker, Job] = {}

    def __enter__(self) -> Workers:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        return self

    def __exit__(self, *_: object) -> None:
        idle, busy = self.idle, list(self.busy)
        self.idle, self.busy = [], {}
        for worker in [*idle, *busy]:
            worker.connection.close()  # an idle one ends by that
        for worker in busy:
            worker.process.terminate()
        for worker in [*idle, *busy]:
            worker.process.join(3)
            if worker.process.is_alive():
                worker.process.kill()

    def give(self, job: Job) -> None:
        """Have an idle worker, or a new one, run a job."""
        while self.idle:
            worker = self.idle.pop()
            with contextlib.suppress(OSError):  # it died while it was idle
                worker.connection.send(job)
                self.busy[worker] = job
                return
            worker.end()
        worker = _Worker()
        worker.connection.send(job)
        self.busy[worker] = job

    def answers(self, timeout: float) -> list[tuple[Job, str, Any]]:
        """What the busy workers have told within ``timeout`` seconds: ``progress``, ``done`` or ``failed``."""
        told: list[tuple[Job, str, Any]] = []
        for connection in wait([worker.connection for worker in self.busy], timeout):
            assert isinstance(connection, Connection)
            worker = next(one for one in self.busy if one.connection is connection)
            job = self.busy[worker]
            try:
                kind, content = connection.recv()
            except (EOFError, OSError):  # it is gone
                del self.busy[worker]
                reason = worker.end()
                mark(job.output, "failed", reason)
                told.append((job, "failed", RuntimeError(reason)))
                continue
            if kind != "progress":
                del self.busy[worker]
                self.idle.append(worker)
            told.append((job, kind, content))
        return told


def workers(jobs: int) -> Workers:
    """One pool for a whole study; a context manager, which ends its processes."""
    return Workers(jobs)


def run_jobs(
    jobs: Sequence[Job],
    pool: Workers,
    title: str,
    console: Console,
    done: Callable[[Job, BaseException | None, float], None] | None = None,
) -> dict[Job, BaseException]:
    """Run what is not finished yet, some at a time, and show how far it is.

    A run that fails does not stop the others, and neither does a worker process that dies. ``done`` is told of each run
    that has ended, with its error if it failed and the seconds of processor time. Returns the failed ones.

    Raises:
        InputError: a finished run was made under other settings; nothing has been run.
    """
    todo = [job for job in jobs if read_status(job.output) != "finished"]
    for job in jobs:
        if job not in todo:
            refuse_changed(job)
    if len(todo) < len(jobs):
        console.print(f"{title}: {len(jobs) - len(todo)} of {len(jobs)} runs are finished already")
    failed: dict[Job, BaseException] = {}
    if not todo:
        return failed
    waiting = deque(todo)
    with Board(title, len(todo), console) as board:
        while waiting or pool.busy:
            while waiting and len(pool.busy) < pool.count:
                job = waiting.popleft()
                pool.give(job)
                board.started(job)
            for job, kind, content in pool.answers(timeout=1.0):
                if kind == "progress":
                    board.progress(job, content)
                    continue
                error = content if kind == "failed" else None
                if error is not None:
                    failed[job] = error
                if done is not None:
                    done(job, error, 0.0 if error is not None else content)
                board.finished(job, None if error is None else first_line(error))
            board.tick()
    return failed


def refuse_failed(failed: Mapping[Job, BaseException]) -> None:
    """Stop where a run has failed.

    Raises:
        InputError: names the runs that failed, why, and the first one's log.
    """
    if not failed:
        return
    job, error = next(iter(failed.items()))
    rest = [other.label for other in failed if other is not job]
    others = f" (and {len(rest)} more: {'; '.join(rest)})" if rest else ""
    raise InputError(
        f"the run {job.label!r} failed: {first_line(error)}{others}",
        path=job.log,
        hint="correct the cause and give the same command again: finished runs are kept",
    ) from error


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
