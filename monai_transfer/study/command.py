"""``monai-transfer study``: several arms under one equal budget, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monai_transfer.errors import InputError
from monai_transfer.options import BundleFolder, number_list

__all__ = ["study"]


def study(
    context: typer.Context,
    bundle: BundleFolder,
    arms: Annotated[
        str, typer.Option(help="scratch,source,fine_tuned,adapted,oracle, or name:workflow:key=value:key=value.")
    ] = "scratch,source,fine_tuned,adapted",
    seeds: Annotated[int, typer.Option(help="Seeds per arm; a verdict needs 5.", min=1)] = 5,
    fractions: Annotated[
        str | None, typer.Option(help="Labelled target cases: counts (4,8) or shares of the training split (0.1,0.5).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the runs; default BUNDLE/runs/study.")] = None,
    jobs: Annotated[int, typer.Option(help="Runs at the same time, one thread each.", min=1)] = 2,
    leave_one_site_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-site-out", help="Each site in turn is the target of a source pretrained on all the others."
        ),
    ] = False,
) -> None:
    """Run several arms under one equal budget and compare them; continues where it was interrupted."""
    from monai_transfer.bundle.run import parse_overrides
    from monai_transfer.study.run_arms import parse_arms, run_study

    if leave_one_site_out:
        from monai_transfer.study.leave_one_site_out import leave_one_site_out as held_out

        if fractions is not None:
            raise InputError("--fractions does not go with --leave-one-site-out", hint="use --n_labelled")
        folder = out if out is not None else bundle / "runs" / "leave_one_site_out"
        rows = held_out(
            bundle,
            folder,
            parse_arms(arms),
            seeds=list(range(seeds)),
            jobs=jobs,
            overrides=parse_overrides(context.args),
        )
        for row in rows:
            typer.echo(f"report: {folder / row.report}")
        return
    reports = run_study(
        bundle,
        out if out is not None else bundle / "runs" / "study",
        parse_arms(arms),
        seeds=list(range(seeds)),
        fractions=number_list(fractions, "--fractions"),
        jobs=jobs,
        overrides=parse_overrides(context.args),
    )
    for report in reports:
        typer.echo(f"report: {report}")
