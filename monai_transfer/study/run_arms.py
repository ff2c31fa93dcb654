"""A study: several arms of one bundle under one equal budget, over seeds and numbers of labels, then compared.

Each run is a run folder of its own, so an interrupted study continues where it stopped and finished runs are kept.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from monai_transfer.bundle.run import open_workflow
from monai_transfer.errors import InputError
from monai_transfer.runs.lock import FolderLock
from monai_transfer.runs.record import find_runs, read_status
from monai_transfer.stopping import keeps
from monai_transfer.study.arms import PRESETS, Arm, parse_arms
from monai_transfer.study.pool import Job, refuse_failed, run_jobs, workers

__all__ = ["PRESETS", "Arm", "for_pretraining", "has_weights", "parse_arms", "run_study"]


def _counts(bundle: Path, fractions: Sequence[float] | None, overrides: Mapping[str, Any]) -> list[int | None]:
    """Numbers of labelled cases: counts, or shares of the target's training split; ``[None]``: what the config says."""
    if not fractions:
        return [None]
    for value in fractions:
        if value <= 0 or (value >= 1 and value != int(value)):
            raise InputError(f"{value} is neither a share below 1 nor a count", hint="write it like 0.1,0.5 or 2,4")
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
    keeps(lambda: study_kept(out))
    with FolderLock(out), workers(jobs) as pool:
        if "pretrained" not in shared and not has_weights(bundle):
            home = out / "pretrain-0"
            job = Job(
                str(bundle), "pretrain", {**for_pretraining(shared), "output_dir": str(home.resolve())}, "pretrain"
            )
            refuse_failed(run_jobs([job], pool, "pretrain on the source", console))
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
                        Job(str(bundle), arm.workflow, {**shared, **arm.overrides, **own}, f"{arm.name}, seed {seed}")
                    )
            refuse_failed(run_jobs(todo, pool, "runs" if count is None else f"{count} labelled", console))
            path = folder / "report.html"
            report = compare_runs(runs, path)
            print_report(report, console=console)
            reports.append(path)
    return reports


def study_kept(out: Path) -> str:
    """What a study that is stopped now leaves."""
    done = sum(run.status == "finished" for run in find_runs(out))
    finished = f"{done} run{'s are' if done != 1 else ' is'} finished"
    return f"{finished}, those under way keep their last finished epoch; the same command continues"


def has_weights(bundle: Path) -> bool:
    """Whether fine-tuning has something to start from: the bundle's weights, or its own finished pretraining."""
    return (bundle / "models" / "model.pt").is_file() or read_status(bundle / "runs" / "pretrain-0") == "finished"


def for_pretraining(shared: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides that pretraining shares with the arms: where the data are, not how the arms are trained."""
    keys = ("dataset_dir", "manifest", "source_site", "target_site", "device")
    return {key: shared[key] for key in keys if key in shared}
