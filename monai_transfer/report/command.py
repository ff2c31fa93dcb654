"""The command ``monai-transfer compare``."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monai_transfer.errors import InputError
from monai_transfer.options import announce, require_run

if TYPE_CHECKING:
    from rich.console import Console

    from monai_transfer.report.compare import TransferReport

__all__ = ["compare", "print_report"]

_GATES = ("helped", "not-hurt")


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, of several arms and seeds.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The .html report to write.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="What to judge by; by default the task's primary metric, such as Dice or AUC.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    choose_by: Annotated[
        str | None,
        typer.Option(
            help="Choose among adapt arms without target labels: entropy, information_maximisation or bnm; snd and "
            "class_clustering did worse than drawing blindly where it could be checked."
        ),
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option(help="Exit with 1 unless an arm 'helped', or if an arm was hurt or lost a class ('not-hurt')."),
    ] = None,
) -> None:
    """Put arms side by side: paired intervals, a verdict for each, one HTML report."""
    if gate is not None and gate not in _GATES:
        raise InputError(f"--gate {gate!r} is not one of {', '.join(_GATES)}", hint="such as --gate helped")
    for path in runs:
        require_run(path)
    announce(f"compare: reading {', '.join(map(str, runs))}", quiet=json)
    from monai_transfer.report.choice import choose_arm
    from monai_transfer.report.compare import compare_runs
    from monai_transfer.report.statistics import HELPED, HURT

    report = compare_runs([run for path in runs for run in _folders(path)], output, metric=metric)
    choice = choose_arm(report, choose_by) if choose_by else None
    if json:
        content = report.to_dict() | ({"choice": choice.to_dict()} if choice else {})
        typer.echo(json_module.dumps(content, indent=2, ensure_ascii=False))
    else:
        print_report(report, output)
        if choice:
            typer.echo(choice.sentence)
    words = {judged.word for judged in report.judgements.values()}
    hurt = HURT in words or any(judged.has_lost for judged in report.judgements.values())
    if (gate == "helped" and HELPED not in words) or (gate == "not-hurt" and hurt):
        raise typer.Exit(1)


def _folders(path: Path) -> list[Path]:
    """A run folder, or the run folders in a study's folder (without the pretraining, which is no arm)."""
    if (path / "run.json").is_file() or not path.is_dir():
        return [path]
    found = sorted(record.parent for record in path.glob("*/run.json") if not record.parent.name.startswith("pretrain"))
    if not found:
        raise InputError("holds no run", path=path, hint="name run folders, or a folder of them")
    return found


def print_report(report: TransferReport, output: Path | None = None, console: Console | None = None) -> None:
    """Print the table, a sentence per arm, the warnings and the conclusion."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = console or Console(soft_wrap=not terminal, width=None if terminal else 240, highlight=False)
    console.print(report.table())
    for sentence in report.verdicts:
        console.print(sentence, markup=False)
    for warning in report.warnings:
        console.print(f"note: {warning}", markup=False)
    if report.decision is not None:
        console.print(report.decision.sentence, markup=False)
    for alarm in report.alarms:
        console.print(f"first: {alarm}", markup=False, style="bold")
    console.print(report.conclusion, markup=False, style="bold")
    if output is not None:
        console.print(f"wrote {output}", markup=False)
