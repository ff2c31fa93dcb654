"""The command ``monai-transfer runs``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from monai_transfer.errors import InputError
from monai_transfer.options import require
from monai_transfer.runs.record import RunState, find_runs

__all__ = ["runs"]

_STYLES = {"finished": "green", "running": "cyan", "interrupted": "yellow", "failed": "red"}


def runs(
    folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder, or a folder of runs.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every run with its status, best score and age."""
    require(folder)
    home = folder / "runs" if (folder / "runs").is_dir() else folder
    found = list(find_runs(home))
    if as_json:
        print(json.dumps([{**asdict(run), "folder": str(run.folder)} for run in found], indent=2))
        return
    if not found:
        raise InputError("holds no run", path=folder, hint="`monai-transfer run` and `study` make them")
    rows = [_cells(run, home) for run in found]
    if not sys.stdout.isatty():
        for run, (_, *cells) in zip(found, rows, strict=True):
            print("  ".join([str(run.folder), *(cell for cell in cells if cell)]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in ("run", "status", "epoch", "best", "last sign", ""):
        table.add_column(name, overflow="fold")
    for run, cells in zip(found, rows, strict=True):
        table.add_row(*cells, style=_STYLES.get(run.status))
    Console(highlight=False).print(table, markup=False)


def _cells(run: RunState, home: Path) -> list[str]:
    epoch = (
        "" if not run.epochs and not run.epoch else f"epoch {run.epoch or 0}" + (f"/{run.epochs}" if run.epochs else "")
    )
    best = "" if run.best is None else f"{run.metric} {run.best:.4g}"
    name = run.folder.relative_to(home).as_posix() if run.folder != home else run.folder.name
    return [name, run.status, epoch, best, f"{_age(run.age)} ago", run.reason or ""]


def _age(seconds: float) -> str:
    for size, word in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} s"
