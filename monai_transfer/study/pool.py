"""Runs of bundles' workflows in a pool of worker processes: some at a time, quietly, one failing alone.

Each run is a run folder of its own, so what was interrupted continues and what is finished is kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from monai_transfer.bundle.run import run_workflow
from monai_transfer.engine.run_folder import read_status
from monai_transfer.errors import InputError
from monai_transfer.files import write_json
from monai_transfer.library_logging import silence_libraries

__all__ = ["Job", "first_line", "refuse_failed", "run_jobs", "workers"]


@dataclass(frozen=True, eq=False)
class Job:
    """One run: a bundle, a workflow, overrides with at least ``output_dir``, and its name in what is printed."""

    bundle: str
    workflow: str
    overrides: dict[str, Any]
    label: str

    @property
    def output(self) -> Path:
        """Its run folder."""
        return Path(self.overrides["output_dir"])

    @property
    def log(self) -> Path:
        """Beside the run folder: that one may be moved or cleared while its run starts."""
        return self.output.with_name(self.output.name + ".log")


def _work(job: Job) -> float:
    """Run one job in a worker process, quietly: its log goes beside the run folder, and into it when it has ended.

    Returns the seconds of processor time that it took.
    """
    import torch

    since = time.process_time()

    torch.set_num_threads(1)
    fresh = {} if read_status(job.output) == "running" else {"fresh": True}
    with _log_to(job.log):
        silence_libraries()
        try:
            run_workflow(job.bundle, job.workflow, {**fresh, **job.overrides}, log=False)
        except Exception as error:
            traceback.print_exc()
            raise _plain(error) from None
    job.log.replace(job.output / "log.txt")
    record = job.output / "run.json"
    write_json(record, {**json.loads(record.read_text(encoding="utf-8")), "job": _settings(job)})
    return time.process_time() - since


def _settings(job: Job) -> dict[str, Any]:
    """What decides a job's result: its workflow, overrides, and the bundle's configs as they are now.

    Absolute paths are told from the run folder, so that a study may be moved.
    """
    told = {}
    for key, value in job.overrides.items():
        if key not in ("output_dir", "fresh"):
            if isinstance(value, (str, Path)):
                value = os.path.relpath(value, job.output) if Path(value).is_absolute() else str(value)
            told[key] = value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
    files = sorted(Path(job.bundle).glob("configs/*.yaml"))
    configs = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
    return {"workflow": job.workflow, "configs": configs, **told}


def _refuse_changed(job: Job) -> None:
    """Refuse a finished run that was made under other settings than are asked for now.

    Raises:
        InputError: which settings differ. Runs without a record of them pass.
    """
    record = json.loads((job.output / "run.json").read_text(encoding="utf-8")).get("job")
    asked = _settings(job)
    if record is None or record == asked:
        return
    words = []
    for key in sorted(record.keys() | asked.keys()):
        if record.get(key) != asked.get(key):
            before, now = (str(side.get(key, "not set")) for side in (record, asked))
            words.append("the bundle's configs" if key == "configs" else f"{key} (it was {before}, now {now})")
    raise InputError(
        f"is finished, under other settings: {', '.join(words)}",
        path=job.output,
        hint="give another --out, or delete that folder to run it again",
    )


def _plain(error: BaseException) -> InputError | RuntimeError:
    """What can be sent to the parent process whatever the error holds: its root; the traceback is in the log."""
    seen: BaseException = error
    while not isinstance(seen, InputError):
        inner = seen.__cause__ or seen.__context__
        if inner is None:
            return RuntimeError(f"{type(seen).__name__}: {seen}")
        seen = inner
    return seen


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
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        os.close(saved[0])
        os.close(saved[1])


def workers(jobs: int) -> ProcessPoolExecutor:
    """One pool for the whole study, started when there is work: a worker takes seconds to import torch and MONAI."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # spawned, not forked: torch's threads do not survive a fork
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def run_jobs(
    jobs: Sequence[Job],
    pool: ProcessPoolExecutor,
    title: str,
    console: Console,
    done: Callable[[Job, BaseException | None, float], None] | None = None,
) -> dict[Job, BaseException]:
    """Run what is not finished yet, some at a time, with a bar on a terminal and a line per run elsewhere.

    A run that fails does not stop the others. ``done`` is told of each run that has ended, with its
    error if it failed and the seconds of processor time. Returns the failed ones.

    Raises:
        InputError: a finished run was made under other settings; nothing has been run.
    """
    todo = [job for job in jobs if read_status(job.output) != "finished"]
    for job in jobs:
        if job not in todo:
            _refuse_changed(job)
    if len(todo) < len(jobs):
        console.print(f"{title}: {len(jobs) - len(todo)} of {len(jobs)} runs are finished already")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    terminal = console.is_terminal
    failed: dict[Job, BaseException] = {}
    if not todo:
        return failed
    with Progress(*columns, console=console, disable=not terminal) as progress:
        bar = progress.add_task(title, total=len(todo))
        futures = {pool.submit(_work, job): job for job in todo}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                job = futures[future]
                error = future.exception()
                if error:
                    failed[job] = error
                if done is not None:
                    done(job, error, 0.0 if error else future.result())
                progress.update(bar, advance=1, description=f"{title}: {job.label}")
                if not terminal:
                    ending = f" FAILED: {first_line(error)}" if error else ""
                    console.print(f"{title}: {count}/{len(todo)} {job.label}{ending}", soft_wrap=True, markup=False)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
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
        hint="hint the cause and give the same command again: finished runs are kept",
    ) from error


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
