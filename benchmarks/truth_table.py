"""Which method helps on this set? Every method of the package beside its control, five seeds, one budget, one table.

    python benchmarks/truth_table.py BUNDLE --out DIR [--methods coral,dann] [--seeds 5] [--steps 80] [--jobs 2]
                                     [--skip translation] [--argument translation:steps=200]
                                     [--home] [--write docs/truth_table.md] [--name NAME] [--render] [--only-run]

What the table has cost so far, and what is left, in seconds of processor time, is printed first.

The bundle's own weights are the source; a bundle without is pretrained first. Every arm has the same number of steps of
the same batch size, keeps its last epoch, and stands at the defaults that its documentation gives: nothing is tuned to
the set. ``monai_transfer/study/method_arms.py`` says what each is compared with. A killed table continues with the same
command: finished cells are kept, failed ones tried again, their reason noted. ``--render`` runs nothing. ``--home``
evaluates every trained network on the source's own test cases too: a column says what adapting cost there.

Each cell is a run folder DIR/<method>-<seed> with its log beside it, and a line of DIR/cells/<method>-<seed>.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from monai_transfer.bundle.run import open_workflow, parse_overrides
from monai_transfer.engine.run_folder import read_status
from monai_transfer.errors import InputError
from monai_transfer.files import write_json
from monai_transfer.library_logging import silence_libraries
from monai_transfer.report.alignment import FIXED
from monai_transfer.report.run import Run
from monai_transfer.runs.record import read_record
from monai_transfer.study.method_arms import MethodArm, find_method_arms
from monai_transfer.study.pool import Job, first_line, refuse_failed, run_jobs, workers
from monai_transfer.study.run_arms import for_pretraining, has_weights
from monai_transfer.study.truth_table import markdown, measure, write_section

PACKAGED = Path(__file__).parents[1] / "bundles"
INTENSITY = "intensity_randomisation"


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0] if __doc__ else None, epilog="other words --key value override config ids"
    )
    parser.add_argument("bundle", type=Path, nargs="?", default=PACKAGED / "head_mr_segmentation")
    parser.add_argument("--out", type=Path, help="folder of the cells; default BUNDLE/runs/truth_table")
    parser.add_argument("--methods", help="names, comma-separated; default all. Their controls come along")
    parser.add_argument(
        "--argument", action="append", default=[], help="NAME:KEY=VALUE of a method's constructor; the table says so"
    )
    parser.add_argument("--skip", default="", help="names to leave out")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=80, help="optimizer steps of every arm")
    parser.add_argument("--jobs", type=int, default=2, help="cells at the same time, one thread each")
    parser.add_argument("--write", type=Path, help="Markdown file whose section of this set is filled")
    parser.add_argument("--name", help="the section's name; default the bundle's")
    parser.add_argument("--home", action="store_true", help="the price: each network on the source's own test cases")
    parser.add_argument("--render", action="store_true", help="the table of what is there; run nothing")
    parser.add_argument("--only-run", action="store_true", help="leave out the methods that were not run")
    parser.add_argument("--quick", action="store_true", help="a smoke test: two steps of one method")
    found, rest = parser.parse_known_args(words)
    found.overrides = parse_overrides(rest)
    if found.quick:
        found.out = found.out or Path(tempfile.mkdtemp())
        found.methods, found.seeds, found.steps, found.jobs = found.methods or "adabn", 1, 2, 1
        found.home = True
    found.out = found.out or found.bundle / "runs" / "truth_table"
    return found


def choose(arms: Sequence[MethodArm], methods: str | None, skip: str, quick: bool = False) -> list[MethodArm]:
    """The arms to run: the named ones with all that they are compared with.

    Raises:
        InputError: an unknown name.
    """
    known = {t.name: t for t in arms}
    left_out = set(filter(None, skip.split(",")))
    wanted = list(filter(None, (methods or "").split(","))) or list(known)
    for name in [*wanted, *left_out]:
        if name not in known:
            raise InputError(f"no method {name!r}", hint=f"one of {', '.join(known)}")
    needed = {"source", *wanted} | (set() if quick else {"oracle", INTENSITY})
    for _ in range(2):  # controls have controls
        needed |= {c for name in needed for c in known[name].controls}
    return [t for t in arms if t.name in needed - left_out and not t.refused]


def with_arguments(arms: Sequence[MethodArm], pairs: Sequence[str]) -> list[MethodArm]:
    """Arms with other arguments than a method's defaults, and a remark that says which.

    Raises:
        InputError: not of the form NAME:KEY=VALUE, or no such method in the adapt workflow.
    """
    found = {t.name: t for t in arms}
    for pair in pairs:
        name, _, setting = pair.partition(":")
        arm = found.get(name)
        if arm is None or "=" not in setting or "method" not in arm.arm.overrides:
            raise InputError(f"cannot set {pair!r}", hint="write it like translation:steps=200, of a method")
        method = {**arm.arm.overrides["method"], **parse_overrides([f"--{setting}"])}
        changed = replace(arm.arm, overrides={**arm.arm.overrides, "method": method})
        found[name] = replace(arm, arm=changed, remark="; ".join(filter(None, [arm.remark, f"with {setting}"])))
    return list(found.values())


def budget(steps: int) -> dict[str, Any]:
    """Overrides that give every arm ``steps`` steps: epochs of ten, validation at the end alone, no pictures."""
    per_epoch = next(n for n in range(min(10, steps), 0, -1) if steps % n == 0)
    epochs = steps // per_epoch
    fixed = {"max_epochs": epochs, "steps_per_epoch": per_epoch, "val_interval": epochs}
    return {**fixed, "test#handlers#0#figures": 0}


def those_of(bundle: Path, workflow: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """The overrides that this workflow has: ``statistics`` is one of ``adapt`` alone."""
    config = open_workflow(bundle, workflow, {}, log=False).parser.config
    return {key: value for key, value in overrides.items() if key.replace("::", "#").split("#")[0].strip("+") in config}


def run(options: argparse.Namespace, arms: Sequence[MethodArm], console: Console) -> None:
    """Run the cells that are not finished yet, seed by seed, so that a table cut short is short of seeds."""
    shared = dict(options.overrides)
    out: Path = options.out.resolve()
    with workers(options.jobs) as pool:
        if "pretrained" not in shared and not has_weights(options.bundle):
            home = out / "pretrain-0"
            pretrain = {**for_pretraining(options.bundle, shared), "output_dir": str(home)}
            job = Job(str(options.bundle), "pretrain", pretrain, "pretrain")
            refuse_failed(run_jobs([job], pool, "source", console))
            shared |= dict.fromkeys(("pretrained", "ckpt"), str(home / "models" / "model.pt"))
        known = {workflow: those_of(options.bundle, workflow, shared) for workflow in {a.arm.workflow for a in arms}}
        if unknown := [key for key in shared if not any(key in found for found in known.values())]:
            hint = "look at the bundle's configs"
            raise InputError(f"no workflow here has the config id {unknown[0]!r}", path=options.bundle, hint=hint)
        jobs = []
        for seed in range(options.seeds):
            for arm in arms:
                if seed and not arm.arm.seeded:
                    continue
                own: dict[str, Any] = {"arm": arm.name, "seed": seed, "output_dir": str(out / f"{arm.name}-{seed}")}
                if reason_of(out, arm.name, seed):
                    own["fresh"] = True  # what failed starts over, perhaps under a fixed configuration
                overrides = {**known[arm.arm.workflow], **budget(options.steps), **arm.arm.overrides, **own}
                jobs.append(Job(str(options.bundle), arm.arm.workflow, overrides, f"{arm.name}, seed {seed}"))
        console.print(cost(out, jobs))
        since = time.time()

        def done(job: Job, error: BaseException | None, seconds: float) -> None:
            record: dict[str, Any] = {"status": "failed" if error else "finished", "reason": ""}
            record["reason"] = first_line(error) if error else ""
            summary = job.output / "summary.json"
            content = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() and not error else {}
            metrics = {name: value["mean"] for name, value in content.get("metrics", {}).items()}
            record |= {"arm": job.overrides["arm"], "seed": job.overrides["seed"], "steps": options.steps}
            record |= {"seconds": round(seconds, 1), "metrics": metrics}
            write_json(out / "cells" / f"{job.output.name}.json", record)

        run_jobs(jobs, pool, "cells", console, done)
        if options.home:
            refuse_failed(run_jobs(jobs_at_home(options, jobs, shared), pool, "at home", console))
        console.print(f"minutes: {(time.time() - since) / 60:.1f}")


def jobs_at_home(options: argparse.Namespace, jobs: Sequence[Job], shared: dict[str, Any]) -> list[Job]:
    """Evaluations at the source site of what the finished cells trained, and of the source itself.

    A method that learns while it predicts leaves no other network behind: what it would do at home was not asked.
    """
    found = []
    for job in jobs:
        weights, record = job.output / "models" / "model.pt", read_record(job.output)
        if record is None or record["status"] != "finished":
            continue
        if job.overrides["arm"] == FIXED:
            own = {key: shared[key] for key in ("pretrained", "ckpt") if key in shared}
        elif weights.is_file():
            own = {"pretrained": "none", "ckpt": str(weights)}
        else:
            continue
        own |= {"arm": job.overrides["arm"], "seed": job.overrides["seed"], "target_site": record["source_site"]}
        own |= {"output_dir": str(job.output.parent / "home" / job.output.name), "test#handlers#0#figures": 0}
        rest = {key: value for key, value in shared.items() if key not in ("pretrained", "ckpt")}
        overrides = {**those_of(options.bundle, "evaluate", rest), **own}
        found.append(Job(str(options.bundle), "evaluate", overrides, f"{job.label} at home"))
    return found


def cost(out: Path, jobs: Sequence[Job]) -> str:
    """Processor time of the cells that are there, and of those left: a cell costs what the finished ones did."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "cells").glob("*.json"))]
    spent = [float(cell["seconds"]) for cell in found if cell["status"] == "finished"]
    left = sum(read_status(job.output) != "finished" for job in jobs)
    ahead = f"about {left * sum(spent) / len(spent):.0f} s" if spent else "not known before the first cell"
    return f"processor time: {sum(spent):.0f} s for {len(spent)} cells so far; {left} of {len(jobs)} left, {ahead}"


def reason_of(out: Path, name: str, seed: int) -> str:
    """Why a cell failed; empty where it did not."""
    cell = out / "cells" / f"{name}-{seed}.json"
    return json.loads(cell.read_text(encoding="utf-8"))["reason"] if cell.is_file() else ""


def table(options: argparse.Namespace, arms: Sequence[MethodArm], console: Console) -> str:
    """The section's text, from the cells that are there."""
    runs: dict[str, dict[int, Run]] = {}
    homes: dict[str, dict[int, Run]] = {}
    failures: dict[str, dict[int, str]] = {}
    for arm in arms:
        for seed in range(options.seeds):
            folder = options.out / f"{arm.name}-{seed}"
            if read_status(folder) == "finished":
                runs.setdefault(arm.name, {})[seed] = Run.load(folder)
                if read_status(home := options.out / "home" / folder.name) == "finished":
                    homes.setdefault(arm.name, {})[seed] = Run.load(home)
            elif reason := reason_of(options.out, arm.name, seed):
                failures.setdefault(arm.name, {})[seed] = reason.replace(f"{options.out.resolve()}/", "")
    if not runs:
        raise InputError("holds no finished cell", path=options.out, hint="run the table first")
    steps = max((r.steps or 0 for of_seed in runs.values() for r in of_seed.values()), default=0)
    first = next(iter(next(iter(runs.values())).values()))
    rows = []
    for arm in arms:
        rows.append(
            measure(
                arm.name,
                arm.group,
                runs,
                arm.controls,
                failures=failures.get(arm.name),
                remarks=(arm.remark, arm.refused, _older(runs.get(arm.name, {}), steps)),
                compare_with=INTENSITY,
                homes=homes,
            )  # fmt: skip
        )
        if arm.refused:
            rows[-1].word = "does not apply"
    if options.only_run:
        rows = [row for row in rows if row.word not in ("not run", "does not apply")]
    patients = len({row["patient"] for row in first.cases})
    command = " ".join(["python benchmarks/truth_table.py", options.bundle.name, *_said(options)])
    name = options.name or options.bundle.resolve().name
    seeds = f"{options.seeds} seed{'s' if options.seeds != 1 else ''}"
    versions = f"torch {version('torch').split('+')[0]}, MONAI {version('monai')}"
    days = sorted({str(r.record.get("ended"))[:10] for of_seed in runs.values() for r in of_seed.values()})
    measured = f"measured {' to '.join(dict.fromkeys((days[0], days[-1])))}"
    words = [row.word for row in rows]
    judged = [row for row in rows if row.group not in ("reference", "control") and row.mean is not None]
    return "\n".join(
        [
            f"## {name}", "", f"    {command}", "",
            f"{first.record.get('source_site')} to {first.record.get('target_site')}: {patients} test patients, "
            f"{len(first.cases)} cases; {steps} steps for every arm that trains; {seeds}; {versions}; "
            f"{measured}. "
            f"Of {len(judged)} methods {words.count('helped')} helped and {words.count('hurt')} hurt.", "",
            markdown(rows, first.metric(first.kind.primary_metric)),
        ]
    )  # fmt: skip


def _older(of_seed: dict[int, Run], steps: int) -> str:
    """Which of an arm's trained cells had another number of steps than the table, and when."""
    found = {f"{r.steps} steps, of {str(r.record.get('ended'))[:10]}" for r in of_seed.values() if r.steps}
    return "; ".join(sorted(text for text in found if not text.startswith(f"{steps} steps")))


def _said(options: argparse.Namespace) -> list[str]:
    """The options that decide what the table says."""
    said = [f"--steps {options.steps}", f"--seeds {options.seeds}"]
    said += [f"--methods {options.methods}"] if options.methods else []
    said += [f"--skip {options.skip}"] if options.skip else []
    said += ["--home"] if options.home else []
    said += ["--only-run"] if options.only_run else []
    said += [f"--argument {pair}" for pair in options.argument]
    return said + [f"--{key} {value}" for key, value in options.overrides.items() if not Path(str(value)).is_absolute()]


def main(words: Sequence[str] | None = None) -> int:
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    try:
        options = arguments(words)
        silence_libraries()
        arms = with_arguments(find_method_arms(options.bundle), options.argument)
        if not options.render:
            run(options, choose(arms, options.methods, options.skip, options.quick), console)
        text = table(options, arms, console)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(text)
    if options.write:
        write_section(options.write, options.name or options.bundle.resolve().name, text)
        print(f"wrote: {options.write}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
