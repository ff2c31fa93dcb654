"""A study: several arms of one bundle under one equal budget, over seeds and numbers of labels, then compared.

Each run is a run folder of its own, so an interrupted study continues where it stopped and finished runs are kept.
"""

from __future__ import annotations

import difflib
import logging
import multiprocessing
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from monai_transfer.bundle.run import open_workflow, parse_overrides, run_workflow
from monai_transfer.engine.run_folder import read_status
from monai_transfer.errors import InputError
from monai_transfer.quiet import quiet_libraries

__all__ = ["PRESETS", "Arm", "parse_arms", "run_study"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arm:
    """One arm: its name in the report, the workflow it runs, and what it overrides.

    ``seeded`` is False where nothing is drawn: such an arm is run once and stands for every seed.
    """

    name: str
    workflow: str
    overrides: dict[str, Any] = field(default_factory=dict)
    seeded: bool = True


ARM_WORKFLOWS = ("train", "adapt", "evaluate")
PRESETS = {
    "scratch": Arm("scratch", "train", {"pretrained": "none"}),
    "source": Arm("source", "evaluate", seeded=False),
    "fine_tuned": Arm("fine_tuned", "train"),
    "head_only": Arm("head_only", "train", {"strategy#_target_": "monai_transfer.strategies.head_only.HeadOnly"}),
    "adapted": Arm("adapted", "adapt"),
    # adaptation's own budget without its term: what more source training and augmentation alone bring
    "source_continued": Arm("source_continued", "adapt", {"weight": 0.0}),
    "oracle": Arm("oracle", "train", {"n_labelled": None}),
}
"""Arms by name. ``oracle`` has all of the target's labels: an upper mark, not something to reach."""


def parse_arms(text: str) -> list[Arm]:
    """``"scratch,source,lora:train:strategy#rank=4"`` as arms; overrides are separated by colons.

    Raises:
        InputError: an unknown name without a workflow, or a malformed override.
    """
    arms = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, *rest = item.split(":")
        if not rest:
            if name not in PRESETS:
                near = difflib.get_close_matches(name, PRESETS, n=1)
                mend = (
                    f"did you mean {near[0]}?" if near else f"one of {', '.join(PRESETS)}, or name:workflow:key=value"
                )
                raise InputError(f"no arm {name!r}", mend=mend)
            arms.append(PRESETS[name])
            continue
        base = PRESETS.get(rest[0])
        overrides = parse_overrides([f"--{pair}" for pair in rest[1:]])
        if base is not None:
            arms.append(Arm(name, base.workflow, {**base.overrides, **overrides}, base.seeded))
        elif rest[0] in ARM_WORKFLOWS:
            arms.append(Arm(name, rest[0], overrides, rest[0] != "evaluate"))
        else:
            mend = f"one of {', '.join([*ARM_WORKFLOWS, *PRESETS])}"
            raise InputError(f"no arm {name!r}: no workflow {rest[0]!r}", mend=mend)
    if len({arm.name for arm in arms}) != len(arms) or not arms:
        raise InputError(f"arms {text!r} are empty or name one twice")
    return arms


@dataclass(frozen=True, eq=False)
class _Job:
    bundle: str
    workflow: str
    overrides: dict[str, Any]
    label: str

    @property
    def output(self) -> Path:
        return Path(self.overrides["output_dir"])

    @property
    def log(self) -> Path:
        """Beside the run folder: that one may be moved or cleared while its run starts."""
        return self.output.with_name(self.output.name + ".log")


def _work(job: _Job) -> None:
    """Run one job in a worker process, quietly: its log goes beside the run folder, and into it when it has ended."""
    import torch

    torch.set_num_threads(1)
    fresh = {} if read_status(job.output) == "running" else {"fresh": True}
    with _log_to(job.log):
        quiet_libraries()
        try:
            run_workflow(job.bundle, job.workflow, {**fresh, **job.overrides}, log=False)
        except Exception as error:
            traceback.print_exc()
            raise _plain(error) from None
    job.log.replace(job.output / "log.txt")


def _plain(error: BaseException) -> InputError | RuntimeError:
    """What can be sent to the parent process whatever the error holds; the traceback is in the log."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, InputError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return RuntimeError(f"{type(error).__name__}: {error}")


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


def _workers(jobs: int) -> ProcessPoolExecutor:
    """One pool for the whole study, started when there is work: a worker takes seconds to import torch and MONAI."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # spawned, not forked: torch's threads do not survive a fork
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def _run_all(jobs: Sequence[_Job], pool: ProcessPoolExecutor, title: str, console: Console) -> None:
    """Run what is not finished yet, some at a time, with a bar on a terminal and a line per run elsewhere.

    A run that fails does not stop the others.

    Raises:
        InputError: names the runs that failed, why, and the first one's log.
    """
    todo = [job for job in jobs if read_status(job.output) != "finished"]
    if len(todo) < len(jobs):
        console.print(f"{title}: {len(jobs) - len(todo)} of {len(jobs)} runs are finished already")
    if not todo:
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    terminal = console.is_terminal
    failed: dict[_Job, BaseException] = {}
    with Progress(*columns, console=console, disable=not terminal) as progress:
        bar = progress.add_task(title, total=len(todo))
        futures = {pool.submit(_work, job): job for job in todo}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                job = futures[future]
                if error := future.exception():
                    failed[job] = error
                progress.update(bar, advance=1, description=f"{title}: {job.label}")
                if not terminal:
                    ending = " FAILED" if error else ""
                    console.print(f"{title}: {count}/{len(todo)} {job.label}{ending}", soft_wrap=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        job, error = next(iter(failed.items()))
        rest = [other.label for other in failed if other is not job]
        others = f" (and {len(rest)} more: {'; '.join(rest)})" if rest else ""
        raise InputError(
            f"the run {job.label!r} failed: {_first_line(error)}{others}",
            path=job.log,
            mend="mend the cause and give the same command again: finished runs are kept",
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _counts(bundle: Path, fractions: Sequence[float] | None, overrides: Mapping[str, Any]) -> list[int | None]:
    """Numbers of labelled cases: counts, or shares of the target's training split; ``[None]``: what the config says."""
    if not fractions:
        return [None]
    for value in fractions:
        if value <= 0 or (value >= 1 and value != int(value)):
            raise InputError(f"{value} is neither a share below 1 nor a count", mend="write it like 0.1,0.5 or 2,4")
    flow = open_workflow(bundle, "train", {**overrides, "n_labelled": None}, log=False)
    flow.initialize()
    total = len(flow.parser.get_parsed_content("lists").target_training)
    counts = [min(total, max(1, round(value * total)) if value < 1 else int(value)) for value in fractions]
    return list(dict.fromkeys(counts))


def run_study(
    bundle: str | Path,
    out: str | Path,
    arms: Sequence[Arm],
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    fractions: Sequence[float] | None = None,
    jobs: int = 2,
    overrides: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> list[Path]:
    """Run arms x seeds (x numbers of labels) and write a report for each number of labels; returns the reports.

    Where the bundle has no weights yet, its ``pretrain`` workflow runs first and all arms start from that.
    Every arm has the same number of steps of the same batch; adaptation reads a target batch in each step besides.

    Raises:
        InputError: whatever a run refuses; the finished runs are kept.
    """
    from monai_transfer.report.command import print_report
    from monai_transfer.report.compare import compare_runs

    bundle, out = Path(bundle), Path(out)
    console = console or Console(file=sys.stdout)
    shared = dict(overrides or {})
    counts = _counts(bundle, fractions, shared)
    with _workers(jobs) as pool:
        if "pretrained" not in shared and not _has_weights(bundle):
            home = out / "pretrain-0"
            job = _Job(
                str(bundle), "pretrain", {**_for_pretraining(shared), "output_dir": str(home.resolve())}, "pretrain"
            )
            _run_all([job], pool, "pretrain on the source", console)
            shared["pretrained"] = str((home / "models" / "model.pt").resolve())
            shared["ckpt"] = shared["pretrained"]
        reports = []
        for count in counts:
            folder = out if count is None else out / f"labelled-{count}"
            todo, runs = [], []
            for arm in arms:
                # an arm without target labels is the same whatever their number: it is run once
                labelled = count is not None and arm.workflow == "train" and "n_labelled" not in arm.overrides
                home = folder if labelled or count is None else out / "any-labelled"
                for seed in seeds if arm.seeded else seeds[:1]:
                    run = (home / f"{arm.name}-{seed}").resolve()
                    runs.append(run)
                    own: dict[str, Any] = {"arm": arm.name, "seed": int(seed), "output_dir": str(run)}
                    if labelled:
                        own["n_labelled"] = count
                    todo.append(
                        _Job(str(bundle), arm.workflow, {**shared, **arm.overrides, **own}, f"{arm.name}, seed {seed}")
                    )
            _run_all(todo, pool, "runs" if count is None else f"{count} labelled", console)
            path = folder / "report.html"
            report = compare_runs(runs, path)
            print_report(report, console=console)
            reports.append(path)
    return reports


def _has_weights(bundle: Path) -> bool:
    """Whether fine-tuning has something to start from: the bundle's weights, or its own finished pretraining."""
    return (bundle / "models" / "model.pt").is_file() or read_status(bundle / "runs" / "pretrain-0") == "finished"


def _for_pretraining(shared: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides that pretraining shares with the arms: where the data are, not how the arms are trained."""
    keys = ("dataset_dir", "manifest", "source_site", "target_site", "device")
    return {key: shared[key] for key in keys if key in shared}
