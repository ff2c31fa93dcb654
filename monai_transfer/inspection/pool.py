"""Inspecting many cases in parallel worker processes, each of which holds one case at a time."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable

from monai_transfer.inspection.case import inspect_case
from monai_transfer.inspection.facts import CaseJob, CaseReport
from monai_transfer.inspection.finding import Finding

__all__ = ["inspect_cases"]

_INLINE = 24
"""Up to so many cases are inspected in this process: starting workers (importing torch) would take longer."""

_LIMIT = 900.0
"""Seconds after which a worker that gives no answer is ended."""

_PLAIN = (".nii", ".gz", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Read without ITK's C++ decoders, which may crash on damaged files: these can be read in this process."""


_COMMAND = [sys.executable, "-m", "monai_transfer.inspection.worker"]


def inspect_cases(
    jobs: list[CaseJob], workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> list[CaseReport]:
    """``inspect_case`` of every job, in their order. A crashed worker is a finding of its case; the others go on.

    Args:
        jobs: what ``inspect_case`` takes.
        workers: number of processes; memory is bounded by so many cases at once.
        progress: called with (done, total) after each case, from any thread.
    """
    results: list[CaseReport] = [CaseReport() for _ in jobs]
    done = 0
    lock = threading.Lock()

    def finish(index: int, result: CaseReport) -> None:
        nonlocal done
        with lock:
            results[index] = result
            done += 1
            if progress is not None:
                progress(done, len(jobs))

    plain = all(path.lower().endswith(_PLAIN) for job in jobs for path in (*job.images, job.label or ".nii"))
    if plain and (workers <= 1 or len(jobs) <= _INLINE):
        for index, job in enumerate(jobs):
            finish(index, inspect_case(job))
        return results
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in range(len(jobs)):
        waiting.put(index)
    failures: list[BaseException] = []

    def serve() -> None:
        process = None
        try:
            while not failures:
                try:
                    index = waiting.get_nowait()
                except queue.Empty:
                    return
                process = process or _start()
                result = _ask(process, jobs[index])
                if result is None:
                    process.kill()
                    result = _crash(jobs[index], process.wait())
                    process = None
                finish(index, result)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failures.append(error)
        finally:
            if process is not None:
                process.kill()
                process.wait()

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(max(1, min(workers, len(jobs))))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt as error:
        failures.append(error)  # the threads end after their present case
        raise
    if failures:
        raise failures[0]
    return results


def _start() -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(
        [*_COMMAND, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=environment,
    )


def _ask(process: subprocess.Popen[str], job: CaseJob) -> CaseReport | None:
    """The worker's answer, or ``None`` where it died."""
    assert process.stdin is not None and process.stdout is not None
    timer = threading.Timer(_LIMIT, process.kill)
    timer.start()
    try:
        process.stdin.write(json.dumps(job.to_dict()) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except (BrokenPipeError, OSError):
        return None
    finally:
        timer.cancel()
    return CaseReport.from_dict(json.loads(answer)) if answer.endswith("\n") else None


def _crash(job: CaseJob, code: int) -> CaseReport:
    reason = f"killed by signal {-code}, perhaps for want of memory or time" if code < 0 else f"exit status {code}"
    fault = f"reading this case ended the reading process ({reason})"
    hint = "export it again, or use fewer --jobs"
    return CaseReport([Finding("error", fault, "unreadable", job.images[0], hint=hint)])
