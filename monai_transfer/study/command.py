"""``monai-transfer study``: several arms under one equal budget, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monai_transfer.bundle.command_line import check_roots, config_files, parse_overrides
from monai_transfer.bundle.planning.budget import asked_for
from monai_transfer.errors import InputError
from monai_transfer.options import BundleFolder, announce, begins_with, given_paths, number_list, require
from monai_transfer.study.arms import ALL, DEFAULT_ARMS, METHODS, PRESETS, parse_arms

__all__ = ["study"]

_ARMS = f"Names of {', '.join(PRESETS)}; methods ({', '.join(METHODS)}); all; or name:workflow:key=value:key=value."


def study(
    context: typer.Context,
    bundle: BundleFolder,
    arms: Annotated[
        str,
        typer.Option(
            help=_ARMS,
            autocompletion=begins_with([*PRESETS, ALL, *METHODS]),
        ),
    ] = DEFAULT_ARMS,
    seeds: Annotated[int, typer.Option(help="Seeds per arm; a verdict needs 5.", min=1)] = 5,
    fractions: Annotated[
        str | None,
        typer.Option(
            help="Labelled target cases: counts (1,2,4,8) or shares of the training split (0.1,0.5); "
            "drawn side by side in label_efficiency.html."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the runs; default BUNDLE/runs/study.")] = None,
    jobs: Annotated[int, typer.Option(help="Runs at the same time, one thread each.", min=1)] = 2,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Of each arm's training: quick, standard, full, a number of optimizer steps, or a time such as 30min, "
            "turned into steps once for all arms."
        ),
    ] = None,
    source_per_seed: Annotated[
        bool,
        typer.Option(
            "--source-per-seed",
            help="Each seed pretrains a source of its own: intervals cover the luck of its training too "
            "(default folder: BUNDLE/runs/study_sources).",
        ),
    ] = False,
    leave_one_site_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-site-out", help="Each site in turn is the target of a source pretrained on all the others."
        ),
    ] = False,
) -> None:
    """Run several arms under one equal budget and compare them; continues where it was interrupted."""
    chosen, overrides, shares = parse_arms(arms), parse_overrides(context.args), number_list(fractions, "--fractions")
    for arm in chosen:
        config_files(bundle, arm.workflow)
    if budget is not None:
        asked_for(budget)
    if any(given.get("patience") is not None for given in (overrides, *(arm.overrides for arm in chosen))):
        raise InputError(
            "early stopping has no place in a study: its arms keep equal budgets", hint="leave patience out"
        )
    require(*given_paths(overrides))
    check_roots(bundle, "adapt" if any(arm.workflow == "adapt" for arm in chosen) else "train", overrides)
    announce(
        f"study of {bundle}: {', '.join(arm.name for arm in chosen)}, {seeds} seeds; loading MONAI takes some seconds"
    )
    if out is None:  # runs of another source under the same names would be refused in one folder
        kept = "leave_one_site_out" if leave_one_site_out else "study_sources" if source_per_seed else "study"
        out = bundle / "runs" / kept
    if budget is not None:
        from monai_transfer.study.budget import study_budget

        found, told = study_budget(bundle, out, budget, overrides)
        overrides |= found
        typer.echo(told)
    if any(arm.of_method for arm in chosen):
        from monai_transfer.study.method_arms import cost_of, resolve_arms

        everything = any(arm.of_method and arm.name == ALL for arm in chosen)
        chosen, said = resolve_arms(bundle, chosen)
        for line in said:
            typer.echo(line)
        if everything:
            typer.echo(cost_of(bundle, chosen, seeds, jobs, overrides))
    if leave_one_site_out:
        from monai_transfer.study.leave_one_site_out import leave_one_site_out as held_out

        if fractions is not None:
            raise InputError("--fractions does not go with --leave-one-site-out", hint="use --n_labelled")
        if source_per_seed:
            raise InputError("--source-per-seed does not go with --leave-one-site-out", hint="use one of them")
        rows = held_out(
            bundle,
            out,
            chosen,
            seeds=list(range(seeds)),
            jobs=jobs,
            overrides=overrides,
        )
        for row in rows:
            typer.echo(f"report: {out / row.report}")
        return
    from monai_transfer.study.run_arms import run_study

    reports = run_study(
        bundle,
        out,
        chosen,
        seeds=list(range(seeds)),
        fractions=shares,
        jobs=jobs,
        overrides=overrides,
        source_per_seed=source_per_seed,
    )
    for report in reports:
        typer.echo(f"report: {report}")
