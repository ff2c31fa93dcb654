"""The process that runs a study's jobs, one after the other: quiet, telling how far it is, ending with its parent."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from monai_transfer import stopping
from monai_transfer.bundle.command_line import AUTO
from monai_transfer.errors import InputError, describe, first_cause
from monai_transfer.files import unwritable, write_json
from monai_transfer.library_logging import silence_libraries
from monai_transfer.runs.progress import listening
from monai_transfer.runs.record import read_status
from monai_transfer.study.jobs import Job, settings_of

__all__ = ["serve"]


def serve(connection: Connection, parent: int) -> None:
    """Run the jobs that come through ``connection`` until it is closed.

    Answers are ``("progress", facts)`` after each epoch, then ``("done", seconds)`` of processor time or ``("failed",
    error)``.
    """
    stopping.install(grace=2.5, says=False)
    stopping.die_with_parent(parent)
    try:
        while True:
            job = connection.recv()
            with listening(lambda facts: connection.send(("progress", facts))):
                try:
                    answer: tuple[str, Any] = ("done", _work(job))
                except Exception as error:
                    answer = ("failed", _sendable(error))
            connection.send(answer)
    except (EOFError, OSError):
        return  # the parent has closed its end, or is gone
    except KeyboardInterrupt:
        stopping.leave_if_stopped()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # it is ending: an interrupt within Python's own end would be told


def _work(job: Job) -> float:
    """Run one job, quietly: its log goes beside the run folder, and into it when it has ended; seconds it took."""
    # imported here: a signal that comes meanwhile is handled already
    import torch

    from monai_transfer.bundle.auto.run import run_auto
    from monai_transfer.bundle.run import run_workflow

    since, settings = time.process_time(), settings_of(job)  # before MONAI rewrites references in the overrides
    torch.set_num_threads(1)
    auto = job.overrides.get("strategy") == AUTO
    # auto looks by itself whether what it finds is its own, and goes on with it
    fresh = {"fresh": True} if read_status(job.output) is None and not auto else {}
    with _log_to(job.log):
        silence_libraries()
        try:
            if auto:
                run_auto(job.bundle, job.overrides, log=False)
            else:
                run_workflow(job.bundle, job.workflow, {**fresh, **job.overrides}, log=False)
        except BaseException:
            traceback.print_exc()
            raise
    job.log.replace(job.output / "log.txt")
    record = job.output / "run.json"
    write_json(record, {**json.loads(record.read_text(encoding="utf-8")), "job": settings})
    return time.process_time() - since


def _sendable(error: BaseException) -> InputError | RuntimeError:
    """What can be sent to the parent process whatever the error holds: its root; the traceback is in the log."""
    cause = first_cause(error)
    return cause if isinstance(cause, InputError) else RuntimeError(describe(error))


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Everything that this process prints or logs goes to ``path``: libraries print too, past Python's streams."""
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with path.open("wb") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    try:
        yield
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        if error.filename is None:  # a full disk, as the streams tell it
            raise unwritable(path, error) from error
        raise
    finally:
        for printed in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # told above, or the run has failed of something else
                printed.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        os.close(saved[0])
        os.close(saved[1])
