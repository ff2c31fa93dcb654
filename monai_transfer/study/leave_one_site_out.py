"""Leave one site out: trained on all other sites, tested on the one that it has never seen, for each site in turn.

The honest question of generalisation across hospitals. For each held-out site and seed the source is pretrained anew on
the other sites: weights that came with a bundle may have seen the held-out one. Then the arms run as in a study, with
the held-out site as their target: ``source`` is the untouched network there, ``adapted`` sees its training images
without labels, ``fine_tuned`` its few labelled cases. With two sites each is trained on the other. A site without a
test split of its own is divided anew, see ``held_out_sites``; one that cannot be tested is named.

Paper (the protocol in use): Dou, Castro, Kamnitsas and Glocker, Domain Generalization via Model-Agnostic Learning of
Semantic Features, NeurIPS 2019 (leave-one-domain-out); multi-site prostate: Liu, Dou, Yu and Heng, MICCAI 2020
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from monai_transfer.arm_names import arm_name
from monai_transfer.bundle.run import open_workflow
from monai_transfer.errors import InputError
from monai_transfer.files import write_json, write_text
from monai_transfer.manifest import Manifest
from monai_transfer.metrics.base import Metric
from monai_transfer.report.alignment import group_runs, tabulate
from monai_transfer.report.run import Run
from monai_transfer.report.statistics import CrossedDifference, crossed_difference
from monai_transfer.report.wording import number, span
from monai_transfer.runs.lock import FolderLock
from monai_transfer.stopping import keeps
from monai_transfer.study.held_out_sites import can_be_held_out, held_out_manifest
from monai_transfer.study.pool import Job, refuse_failed, run_jobs, workers
from monai_transfer.study.run_arms import Arm, arms_on, for_pretraining, study_kept

__all__ = ["HeldOut", "leave_one_site_out", "sites_to_hold_out"]


@dataclass
class HeldOut:
    """One site in turn: its test patients, the arms' means there, and ``home``, the source's at the sites it knows
    (other patients: a hint at the loss, not a paired difference)."""

    site: str
    patients: int
    home: CrossedDifference | None
    arms: dict[str, CrossedDifference] = field(default_factory=dict)
    report: str = ""


def sites_to_hold_out(
    bundle: str | Path, overrides: Mapping[str, Any] | None = None, *, trains_there: bool = True
) -> tuple[Manifest, list[str], dict[str, str]]:
    """The manifest, its sites that can be held out, and for each other site why it cannot.

    Args:
        bundle: whose manifest it is.
        overrides: of the config, ``manifest`` among them.
        trains_there: some arm learns from the held-out site's own training cases.

    Raises:
        InputError: fewer than two sites, or none that can be held out.
    """
    flow = open_workflow(bundle, "train", dict(overrides or {}), log=False)
    path = Path(str(flow.parser.get_parsed_content("manifest")))
    manifest = Manifest.load(path)
    sites = [site for site in manifest.sites if site]
    if len(sites) < 2:
        raise InputError(
            f"leaving one site out needs two sites, and there is {', '.join(sites) or 'none'}", path=path,
            hint="name sites with `monai-transfer manifest --site` or --site-from",
        )  # fmt: skip
    held, reasons = can_be_held_out(manifest, trains_there)
    if not held:
        said = "; ".join(f"{site}: {reason}" for site, reason in reasons.items())
        raise InputError(f"no site can be held out ({said})", path=path, hint="label cases at two sites")
    return manifest, held, reasons


def leave_one_site_out(
    bundle: str | Path,
    out: str | Path,
    arms: Sequence[Arm],
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    jobs: int = 2,
    overrides: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> list[HeldOut]:
    """Run pretraining and arms for each held-out site; writes a report for each, and a table over all, into ``out``.

    ``leave_one_site_out.md`` and ``.json`` hold the table. An interrupted one continues.

    Raises:
        InputError: as ``sites_to_hold_out``, or whatever a run refuses.
    """
    bundle, out = Path(bundle), Path(out)
    console = console or Console(file=sys.stdout)
    shared = {k: v for k, v in dict(overrides or {}).items() if k not in ("source_site", "target_site")}
    arms = arms_on(bundle, arms)
    if sourced := [arm.name for arm in arms if arm.pretraining]:
        raise InputError(
            f"arms with a source of their own ({', '.join(sourced)}) do not go with leaving sites out",
            hint="leave them out of --arms",
        )
    trains_there = any(arm.workflow != "evaluate" for arm in arms)
    manifest, held, reasons = sites_to_hold_out(bundle, shared, trains_there=trains_there)
    sites = [site for site in manifest.sites if site]
    for site, reason in reasons.items():
        console.print(f"{site} is not held out: {reason}", markup=False, soft_wrap=True)
    pretrainings: dict[tuple[str, int], Job] = {}
    todo: list[Job] = []
    for site in held:
        others = [s for s in sites if s != site]
        domains: dict[str, Any] = {"source_site": others if len(others) > 1 else others[0], "target_site": site}
        divided = held_out_manifest(manifest, site, trains_there, _folder(out, site) / "manifest.json")
        if divided is not None:
            domains["manifest"] = str(divided.resolve())
            share = "half of it is the test" if trains_there else "all of it is the test"
            console.print(f"{site} has no test split: {share}", markup=False, soft_wrap=True)
        for seed in seeds:
            home = _folder(out, site) / f"pretrain-{seed}"
            own = {**for_pretraining(bundle, shared), **domains, "seed": int(seed), "output_dir": str(home.resolve())}
            job = Job(str(bundle), "pretrain", own, f"without {site}, seed {seed}")
            pretrainings[site, seed] = job
            weights = str((job.output / "models" / "model.pt").resolve())
            for arm in arms:
                run = (_folder(out, site) / f"{arm.name}-{seed}").resolve()
                start = {"ckpt": weights, "pretrained": weights, **domains}
                own = {"arm": arm.name, "seed": int(seed), "output_dir": str(run)}
                changes = {**shared, **start, **arm.overrides, **own}
                todo.append(Job(str(bundle), arm.workflow, changes, f"{arm.name} at {site}, seed {seed}"))
    keeps(lambda: study_kept(out))
    with FolderLock(out), workers(jobs) as pool:
        refuse_failed(run_jobs(list(pretrainings.values()), pool, "pretrain on the other sites", console))
        refuse_failed(run_jobs(todo, pool, "held-out sites", console))
    found = [_measure(out, site, arms, seeds) for site in held]
    first = Run.load(_folder(out, held[0]) / f"{arms[0].name}-{seeds[0]}")
    metric = first.metric(first.kind.primary_metric)
    text = _markdown(found, arms, metric, len(seeds))
    text += "".join(f"\n\n{site} is not held out: {reason}" for site, reason in reasons.items())
    write_text(out / "leave_one_site_out.md", text + "\n")
    write_json(
        out / "leave_one_site_out.json",
        {"metric": metric.full_name, "sites": [_as_row(row) for row in found], "not_held_out": reasons},
    )
    console.print(text, markup=False, soft_wrap=True)
    return found


def _folder(out: Path, site: str) -> Path:
    return out / f"without-{site.replace('/', '_')}"


def _measure(out: Path, site: str, arms: Sequence[Arm], seeds: Sequence[int]) -> HeldOut:
    from monai_transfer.report.compare import compare_runs

    folder = _folder(out, site)
    runs = [Run.load(folder / f"{arm.name}-{seed}") for arm in arms for seed in seeds]
    grouped, task = group_runs(runs), runs[0].task
    metric = runs[0].metric(runs[0].kind.primary_metric)
    tables = tabulate(grouped, metric, task)
    row = HeldOut(site, len({case["patient"] for case in runs[0].cases}), None, report=f"{folder.name}/report.html")
    row.arms = {arm: crossed_difference(values) for arm, values in tables.values.items() if values.size}
    known = [folder / f"pretrain-{seed}" for seed in seeds]
    if all((run / "cases.csv").is_file() for run in known):  # the sites it knows have test cases of their own
        home = [Run.load(run) for run in known]
        for run in home:
            run.record["arm"] = "home"
        at_home = tabulate(group_runs(home), metric, task).values["home"]
        row.home = crossed_difference(at_home) if at_home.size else None
    compare_runs(runs, folder / "report.html")
    return row


def _value(c: CrossedDifference | None) -> str:
    return "–" if c is None else f"{number(c.mean)} ({span(c.low, c.high)})"


def _markdown(found: Sequence[HeldOut], arms: Sequence[Arm], metric: Metric, seeds: int) -> str:
    """The table: each held-out site, then the mean over sites (each counts the same)."""
    names = [arm.name for arm in arms]
    heads = ["held-out site", "test patients", "at the sites it knows", *(arm_name(name) for name in names)]
    lines = [
        f"{metric.heading}, {seeds} seed{'s' if seeds > 1 else ''}; 95 % intervals over seeds and patients",
        "",
    ]
    lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in found:
        cells = [row.site, str(row.patients), _value(row.home), *(_value(row.arms.get(name)) for name in names)]
        lines.append("| " + " | ".join(cells) + " |")
    means = []
    for values in ([row.home for row in found], *([row.arms.get(name) for row in found] for name in names)):
        known = [c.mean for c in values if c is not None]
        means.append(number(sum(known) / len(known)) if len(known) == len(found) else "–")
    lines.append("| " + " | ".join(["mean of sites", "", *means]) + " |")
    return "\n".join(lines)


def _as_row(row: HeldOut) -> dict[str, Any]:
    def one(c: CrossedDifference | None) -> dict[str, float] | None:
        return None if c is None else {"mean": float(c.mean), "low": float(c.low), "high": float(c.high)}

    arms = {name: one(c) for name, c in row.arms.items()}
    return {"site": row.site, "patients": row.patients, "home": one(row.home), "arms": arms, "report": row.report}
