"""A study: several arms of one bundle under one equal budget, over seeds and numbers of labels, then compared.

Each run is a run folder of its own, so an interrupted study continues where it stopped and finished runs are kept.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from monai_transfer.bundle.auto.plan import make_plan
from monai_transfer.bundle.command_line import AUTO, config_files
from monai_transfer.bundle.run import open_workflow
from monai_transfer.bundle_reader.references import Resolver
from monai_transfer.errors import InputError
from monai_transfer.runs.lock import FolderLock
from monai_transfer.runs.record import find_runs, read_status, state_of
from monai_transfer.safe_parse import read_config
from monai_transfer.stopping import keeps
from monai_transfer.study.arms import PRESETS, Arm, are_default, parse_arms
from monai_transfer.study.centred_blob import write_blob
from monai_transfer.study.pool import Job, refuse_failed, run_jobs, workers

__all__ = ["PRESETS", "Arm", "arms_on", "for_pretraining", "has_weights", "parse_arms", "run_study"]


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
    source_per_seed: bool = False,
) -> list[Path]:
    """Run arms x seeds (x numbers of labels) and write a report for each number of labels; returns the reports.

    Several numbers of labels are joined in ``label_efficiency.html``, the last of the reports.

    Arms with a source of their own (``Arm.pretraining``) pretrain it first, under the same budget. Where the bundle has
    no weights yet, its ``pretrain`` workflow runs first and all arms start from that. Every arm has the same number of
    steps of the same batch; adaptation reads a target batch in each step besides. ``source_per_seed``: each seed
    pretrains a source of its own, so that intervals cover the luck of the source's training too.

    Raises:
        InputError: whatever a run refuses; the finished runs are kept. A source for each seed, and weights are given.
    """
    from monai_transfer.report.command import print_report
    from monai_transfer.report.compare import compare_runs
    from monai_transfer.report.html import write_efficiency
    from monai_transfer.report.label_efficiency import label_efficiency

    bundle, out = Path(bundle), Path(out)
    console = console or Console(file=sys.stdout)
    shared = dict(overrides or {})
    arms = arms_on(bundle, arms)
    if source_per_seed:
        arms = _each_with_its_source(bundle, arms, shared)
    counts = _counts(bundle, fractions, shared)
    if any(arm.overrides.get("strategy") == AUTO for arm in arms):
        for count in counts:
            budget = {} if count is None else {"n_labelled": count}
            console.print(make_plan(bundle, {**shared, **budget}).words, markup=False)
    keeps(lambda: study_kept(out))
    with FolderLock(out), workers(jobs) as pool:
        by_seed: dict[int, dict[str, Any]] = {}
        if source_per_seed:
            by_seed = _pretrained(bundle, out, shared, seeds, pool, console)
        elif "pretrained" not in shared and not has_weights(bundle):
            shared |= _pretrained(bundle, out, shared, [None], pool, console)[0]
        sources = _own_sources(bundle, out, arms, shared, pool, console)
        reports = []
        by_count = {}
        told: set[Path] = set()
        for count in counts:
            folder = out if count is None else out / f"labelled-{count}"
            todo, runs = [], []
            for arm in arms:
                # an arm without target labels is the same whatever their number: it is run once
                labelled = (
                    count is not None and arm.workflow in ("train", "scratch") and "n_labelled" not in arm.overrides
                )
                home = folder if labelled or count is None else out / "any-labelled"
                for seed in seeds if arm.seeded else seeds[:1]:
                    run = (home / f"{arm.name}-{seed}").resolve()
                    runs.append(run)
                    own: dict[str, Any] = {"arm": arm.name, "seed": int(seed), "output_dir": str(run)}
                    if labelled:
                        own["n_labelled"] = count
                    todo.append(
                        Job(
                            str(bundle),
                            arm.workflow,
                            {**shared, **by_seed.get(seed, {}), **sources.get(arm.name, {}), **arm.overrides, **own},
                            f"{arm.name}, seed {seed}",
                        )
                    )
            refuse_failed(run_jobs(todo, pool, "runs" if count is None else f"{count} labelled", console))
            write_blob(bundle, out, shared)
            path = folder / "report.html"
            report = compare_runs(runs, path)
            told.update(runs)
            print_report(report, console=console)
            reports.append(path)
            if count is not None:
                by_count[count] = report
        if len(by_count) > 1:
            efficiency = label_efficiency(by_count)
            reports.append(write_efficiency(efficiency, out / "label_efficiency.html"))
            for sentence in efficiency.sentences:
                console.print(sentence, markup=False)
            console.print(efficiency.conclusion, markup=False, style="bold")
        homes = {run.parent for run in told} | ({out / "any-labelled"} if fractions else set())
        if others := _left_out(homes, told):
            console.print(
                f"{out} has finished runs of {', '.join(others)} besides, which were not asked for and are not in "
                "these reports; with their names in --arms they are, and nothing is run again",
                markup=False,
            )
    return reports


def _left_out(homes: set[Path], told: set[Path]) -> list[str]:
    """Arms of earlier calls with finished runs in a study's folder that the reports of this call leave out."""
    reported = {run.name.rpartition("-")[0] for run in told}
    found = {
        run.arm
        for home in homes
        for path in home.glob("*/run.json")
        if (run := state_of(path.parent)).status == "finished" and run.workflow != "pretrain"
    }
    return sorted(found - reported - {""})


def arms_on(bundle: str | Path, arms: Sequence[Arm]) -> list[Arm]:
    """The arms as this bundle can run them, without early stopping.

    A bundle made before joint training tunes on the target's cases alone anyway, and leaves it out of the default arms.

    Raises:
        InputError: an arm wants what an older bundle's configs do not have.
    """
    config = open_workflow(bundle, "train", {}, log=False).parser.config
    known, patience = set(config), config.get("patience")
    found = []
    alone = any(Path(bundle).glob("configs/scratch.*"))
    default = are_default(arms)
    if alone and default:
        arms = [*arms[:1], PRESETS["scratch_same"], *arms[1:]]
    for arm in arms:
        if alone and arm.name == "scratch" and arm.workflow == "train" and arm.overrides.get("pretrained") == "none":
            arm = _without_source(arm)
        elif arm.name == "scratch_same" and not alone:
            hint = "it has no configs/scratch.yaml: its arm scratch has the same network already"
            raise InputError("the arm scratch_same is of bundles made from a source", path=bundle, hint=hint)
        wanted = {
            key
            for key in ("joint", "average", "average_statistics", "augment_source")
            if key in {**arm.overrides, **arm.pretraining}
        }
        if "joint" in wanted - known and arm.overrides.get("joint") is False:
            arm = replace(arm, overrides={key: value for key, value in arm.overrides.items() if key != "joint"})
            wanted.discard("joint")
        if wanted - known and default:
            continue  # nobody asked for it
        if wanted - known:
            lacking = " and ".join(sorted(wanted - known))
            raise InputError(
                f"the arm {arm.name} wants {lacking}, which this bundle's configs do not have",
                path=bundle,
                hint="make it anew with `monai-transfer new --force`, or leave the arm out",
            )
        if patience is not None and arm.workflow != "evaluate":  # whatever the bundle says: equal budgets
            arm = replace(arm, overrides={**arm.overrides, "patience": None})
        found.append(arm)
    return found


def _without_source(arm: Arm) -> Arm:
    """The arm in the bundle's ``scratch`` workflow, which has random weights anyway."""
    return replace(arm, workflow="scratch", overrides={k: v for k, v in arm.overrides.items() if k != "pretrained"})


def _each_with_its_source(bundle: Path, arms: Sequence[Arm], shared: Mapping[str, Any]) -> list[Arm]:
    """The arms where each seed has a source of its own: the untouched source is run for each seed too."""
    config_files(bundle, "pretrain")
    if given := next((key for key in ("pretrained", "ckpt") if key in shared), None):
        hint = f"leave out --{given}: weights that are given are one source"
        raise InputError("a source for each seed is pretrained here", path=bundle, hint=hint)
    if own := [arm.name for arm in arms if arm.pretraining]:
        hint = "leave the arm out, or compare it in a study of its own"
        raise InputError(f"the arm {own[0]} has a source of its own, which is one for all seeds", hint=hint)
    return [replace(arm, seeded=True) for arm in arms]


def _pretrained(
    bundle: Path, out: Path, shared: Mapping[str, Any], seeds: Sequence[int | None], pool: Any, console: Console
) -> dict[int, dict[str, Any]]:
    """Pretrains one source for each seed, or with ``None`` under the bundle's; by seed, the overrides that name it."""
    jobs = {}
    for seed in seeds:
        own = {} if seed is None else {"seed": int(seed)}
        label = "pretrain" if seed is None else f"pretrain, seed {seed}"
        jobs[seed or 0] = _pretraining(bundle, out / f"pretrain-{seed or 0}", shared, own, label)
    return _started_from(jobs, pool, "pretrain on the source", console)


def _own_sources(
    bundle: Path, out: Path, arms: Sequence[Arm], shared: Mapping[str, Any], pool: Any, console: Console
) -> dict[str, dict[str, Any]]:
    """Pretrains what arms with a source of their own start from; by arm, the overrides that name it."""
    jobs = {}
    for arm in arms:
        if arm.pretraining:
            home, label = out / f"pretrain-{arm.name}-0", f"pretrain for {arm.name}"
            jobs[arm.name] = _pretraining(bundle, home, shared, arm.pretraining, label)
    return _started_from(jobs, pool, "sources of their own", console)


def _pretraining(bundle: Path, home: Path, shared: Mapping[str, Any], own: Mapping[str, Any], label: str) -> Job:
    """The run that pretrains a source under what it shares with the arms."""
    overrides = {**for_pretraining(bundle, shared), **own, "output_dir": str(home.resolve())}
    return Job(str(bundle), "pretrain", overrides, label)


def _started_from(jobs: Mapping[Any, Job], pool: Any, title: str, console: Console) -> dict[Any, dict[str, Any]]:
    """Runs pretrainings; for each the overrides that start an arm from its weights."""
    if jobs:
        refuse_failed(run_jobs(list(jobs.values()), pool, title, console))
    weights = {name: str(job.output / "models" / "model.pt") for name, job in jobs.items()}
    return {name: {"pretrained": path, "ckpt": path} for name, path in weights.items()}


def study_kept(out: Path) -> str:
    """What a study that is stopped now leaves."""
    done = sum(run.status == "finished" for run in find_runs(out))
    finished = f"{done} run{'s are' if done != 1 else ' is'} finished"
    return f"{finished}, those under way keep their last finished epoch; the same command continues"


def has_weights(bundle: Path) -> bool:
    """Whether fine-tuning has something to start from: the file that ``pretrained`` names in the bundle's train config.

    ``models/model.pt`` is not that file where a bundle pretrains its own source: there it is a published model, perhaps
    a fine-tuned one.
    """
    config = read_config(config_files(bundle, "train")[0])
    named = Resolver({**config, "bundle_root": str(bundle)}).get("pretrained")
    weights = Path(named) if isinstance(named, str) else bundle / "models" / "model.pt"
    run = weights.parent.parent
    return weights.is_file() and (read_status(run) == "finished" or not (run / "run.json").is_file())


def for_pretraining(bundle: Path, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides that pretraining shares with the arms: all ids that it has and does not set itself.

    Patch, batch, network, normalisation, augmentation or device must be the same on both sides. Its own are the epochs,
    the learning rate and the cases (``pretrain.yaml``); strategy and starting weights are fine-tuning alone.
    """
    train, pretrain = (read_config(path) for path in config_files(bundle, "pretrain"))
    own = {_root(key) for key in pretrain if "::" not in key} | {"strategy", "ckpt", "pretrained", "arm", "workflow"}
    return {key: value for key, value in shared.items() if _root(key) in train and _root(key) not in own}


def _root(key: str) -> str:
    return key.replace("::", "#").split("#")[0]
