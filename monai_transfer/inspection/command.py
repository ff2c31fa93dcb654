"""The command ``monai-transfer check``."""

from __future__ import annotations

import json as json_module
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from monai_transfer.errors import InputError
from monai_transfer.inspection.finding import Finding
from monai_transfer.manifest.model import Manifest
from monai_transfer.options import announce, require

if TYPE_CHECKING:
    from monai_transfer.inspection.facts import Inspected

__all__ = ["check"]

_SHOWN = 10
_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def check(
    manifest: Annotated[Path, typer.Argument(help="The manifest to check.")],
    source: Annotated[Path | None, typer.Option(help="A bundle: do the data suit its model?")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    fix_to: Annotated[
        Path | None, typer.Option(help="Folder for corrected copies (safe fixes only) and a manifest of them.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes; so many cases are in memory at once.", min=1)] = 2,
    max_memory: Annotated[str | None, typer.Option(help="What reading one image may take, e.g. 2GiB.")] = None,
) -> None:
    """Read every file of a manifest and say everything that is wrong, at once.

    Exit code 1 if there are errors, 0 if there are only warnings; files are never changed in place.
    """
    require(manifest, source)
    data = Manifest.load(manifest)
    announce(f"check: reading every file of {manifest}", quiet=json, err=True)
    # imported late: these bring torch, and other commands should start without it
    from monai_transfer.inspection.check import findings_of, fix_manifest
    from monai_transfer.inspection.suitability import compare_with_source, describe_inspected, read_source

    if source is not None:
        read_source(source)  # a wrong bundle is told before the long work
    if fix_to is not None and fix_to.exists() and (not fix_to.is_dir() or any(fix_to.iterdir())):
        raise InputError("is not an empty folder", path=fix_to, hint="name a new folder for the corrected copies")
    inspected = _inspect(data, jobs, max_memory, "reading")
    written: list[str] = []
    if fix_to is not None:
        data, written = fix_manifest(data, inspected, fix_to)
        inspected = _inspect(data, jobs, max_memory, "reading the corrected copies")
    findings = findings_of(data, inspected)
    suits = [] if source is None else compare_with_source(describe_inspected(data, inspected), source)
    count = Counter(finding.severity for finding in [*findings, *suits])
    if json:
        result = {
            "manifest": str(data.path),
            "cases": len(inspected),
            "errors": count["error"],
            "warnings": count["warning"],
            "findings": [finding.to_dict() for finding in findings],
            "source": None if source is None else [finding.to_dict() for finding in suits],
            "written": written,
        }
        print(json_module.dumps(result, indent=2))
    else:
        _show(findings, data.name)
        if source is not None:
            _show(suits, f"{data.name} for {source.name}")
        for line in written:
            print(f"corrected: {line}")
        if fix_to is not None:
            print(f"wrote {data.path}")
            if count["error"]:
                print("what is an error above is not corrected: only someone who knows the data can correct it")
        say = f"{len(inspected)} cases checked: {count['error']} errors, {count['warning']} warnings"
        print(say if findings or suits else f"{say}; nothing is wrong")
    if count["error"]:
        raise typer.Exit(1)


def _inspect(manifest: Manifest, jobs: int, max_memory: str | None, text: str) -> Inspected:
    """``inspect_manifest`` with a progress bar on a terminal, elsewhere with a line now and then, on standard error."""
    from monai_transfer.inspection.check import inspect_manifest

    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(text, total=None)

            def show(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            return inspect_manifest(manifest, jobs=jobs, max_memory=max_memory, progress=show)
    return inspect_manifest(manifest, jobs=jobs, max_memory=max_memory, progress=_progress_lines(text))


def _progress_lines(text: str) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        if done == total or done % max(1, total // 10) == 0:
            print(f"{text}: {done} of {total}", file=sys.stderr)

    return show


def _show(findings: list[Finding], title: str) -> None:
    findings, more = _shorten(findings)
    if not sys.stdout.isatty():
        for text in [*(finding.line() for finding in findings), *more]:
            print(text)
        return
    if not findings:
        return
    table = Table(title=escape(title), title_justify="left", show_lines=False)
    table.add_column("")
    table.add_column("case", overflow="fold")
    table.add_column("file", overflow="fold")
    table.add_column("fault", overflow="fold", ratio=2)
    table.add_column("hint", overflow="fold", ratio=1)
    for finding in findings:
        case = f"{finding.case or ''}\n{finding.split or ''}".strip()
        hint = (finding.hint or "") + (" (--fix-to)" if finding.fixable else "")
        colour = _COLOURS[finding.severity]
        cells = (case, finding.file or "", finding.fault, hint)
        table.add_row(f"[{colour}]{finding.severity}[/]", *(escape(cell) for cell in cells))
    Console().print(table)
    for text in more:
        print(text)


def _shorten(findings: list[Finding]) -> tuple[list[Finding], list[str]]:
    """All errors, the first warnings of each kind, and a line for each kind of which more are left out."""
    seen: Counter[str] = Counter()
    shown = []
    for finding in findings:
        seen[finding.code] += finding.severity != "error"
        if finding.severity == "error" or seen[finding.code] <= _SHOWN:
            shown.append(finding)
    more = [f"... and {n - _SHOWN} more warnings [{code}] (--json lists all)" for code, n in seen.items() if n > _SHOWN]
    return shown, more
