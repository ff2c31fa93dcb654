"""``monai-transfer demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monai_transfer.demo_settings import demo_settings
from monai_transfer.errors import InputError
from monai_transfer.options import announce

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("demo"),
    jobs: Annotated[int, typer.Option(help="Runs at the same time, one thread each.", min=1)] = 2,
    seeds: Annotated[int, typer.Option(help="Seeds per arm; fewer than 5 give numbers but no verdict.", min=1)] = 5,
    task: Annotated[
        str, typer.Option(help="segmentation (3D), classification (2D) or regression (3D).")
    ] = "segmentation",
) -> None:
    """Pretrain, fine-tune, adapt and compare on embedded (simulated) data, offline, in a few minutes."""
    demo_settings(task)
    if out.is_file():
        raise InputError("is a file", path=out, hint="name a folder for the demo")
    announce(f"demo of {task}: everything goes to {out}; loading MONAI takes some seconds")
    from monai_transfer.demo import run_demo

    run_demo(out, task=task, jobs=jobs, seeds=seeds)
