"""``monai-transfer demo``: pretrain, fine-tune, adapt and compare on the embedded set, offline, in a few minutes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.console import Console

from monai_transfer.bundle.export import export_bundle
from monai_transfer.bundle.new import new_bundle
from monai_transfer.data.phantom import embedded_set
from monai_transfer.demo_settings import demo_settings
from monai_transfer.errors import InputError
from monai_transfer.manifest import Manifest
from monai_transfer.study.method_arms import resolve_arms
from monai_transfer.study.run_arms import parse_arms, run_study

__all__ = ["run_demo"]


def run_demo(out: str | Path, *, task: str = "segmentation", jobs: int = 2, seeds: int = 5) -> Path:
    """Pretrain at one simulated site, see it fail at another, fine-tune on few cases, adapt without labels, compare.

    Everything lies in ``out`` afterwards: the bundle, a folder per run, ``report.html`` and the deployable bundle. An
    interrupted demo continues. Returns the report's path.

    Raises:
        InputError: unknown task, or ``out`` is a file.
    """
    settings = demo_settings(task)
    out, since = Path(out), time.monotonic()
    if out.is_file():
        raise InputError("is a file", path=out, hint="name a folder for the demo")
    terminal = sys.stdout.isatty()
    console = Console(soft_wrap=not terminal, width=None if terminal else 240, highlight=False)

    console.print("[bold]1. data[/bold]  simulated head MR of two sites (no patients)")
    path = Path(embedded_set(task)) / "manifest.json"
    manifest = Manifest.load(path)
    source, target = manifest.sites[:2]
    for site, part in ((source, "source"), (target, "target")):
        counts = ", ".join(f"{len(manifest.cases(s, site=site))} {s}" for s in ("training", "validation", "test"))
        console.print(f"   {site} ({part}): {counts}")

    bundle = out / f"demo_{task}"
    console.print(f"[bold]2. bundle[/bold]  {bundle}")
    if not (bundle / "configs").is_dir():
        new_bundle(bundle, path, source_site=source, target_site=target, size="small", **settings.options)

    console.print(f"[bold]3. pretrain at {source}, then {seeds} seeds of each arm at {target}[/bold]")
    arms, _ = resolve_arms(bundle, parse_arms("scratch,source,fine_tuned,source_longer,adapted"))
    (report,) = run_study(bundle, out, arms, seeds=list(range(seeds)), jobs=jobs, console=console)

    deploy = out / "deploy"
    if not deploy.exists():
        export_bundle(bundle, "bundle", deploy, run=out / "fine_tuned-0")
    console.print(f"bundle that runs with MONAI alone: {deploy}")
    console.print(f"report: {report.resolve()}   ({time.monotonic() - since:.0f} s)")
    return report
