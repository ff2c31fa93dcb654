"""What a study shows while it runs: which runs, at which epoch, how well, and how much time is left."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from monai_transfer.study.jobs import Job

__all__ = ["Board"]

_EVERY = 30.0
"""Seconds between two lines where there is no terminal."""


class Board:
    """Bars on a terminal, one for the whole and one per run under way; plain lines elsewhere.

    Args:
        title: of the whole.
        total: number of runs.
        console: where to.
    """

    def __init__(self, title: str, total: int, console: Console) -> None:
        self.title, self.total, self.console = title, total, console
        self.ended = 0
        self._since = self._told = time.monotonic()
        self._facts: dict[Job, dict[str, Any]] = {}
        self._tasks: dict[Job, TaskID] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, TextColumn("{task.fields[note]}"), console=console, disable=not self.live)
        self._whole = self._bars.add_task(title, total=total, note="")

    @property
    def live(self) -> bool:
        """Whether it draws on a terminal."""
        return self.console.is_terminal

    def __enter__(self) -> Board:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def started(self, job: Job) -> None:
        """A run has been given to a worker."""
        self._facts[job] = {}
        if self.live:
            self._tasks[job] = self._bars.add_task(f"  {job.label}", total=None, note="starting")
        else:
            self._say(f"{self.title}: started {job.label}")

    def progress(self, job: Job, facts: dict[str, Any]) -> None:
        """A run has finished an epoch."""
        self._facts[job] = facts
        if self.live:
            self._bars.update(self._tasks[job], completed=facts["epoch"], total=facts["epochs"], note=_score(facts))
        self.tick()

    def finished(self, job: Job, fault: str | None) -> None:
        """A run has ended, well or (with the reason) not."""
        self.ended += 1
        self._facts.pop(job, None)
        if self.live:
            self._bars.remove_task(self._tasks.pop(job))
            self._bars.update(self._whole, advance=1, note=self._left())
        ending = f" FAILED: {fault}" if fault else ""
        if fault or not self.live:
            self._say(f"{self.title}: {self.ended}/{self.total} {job.label}{ending}")

    def tick(self) -> None:
        """Called now and then: brings the time that is left up to date."""
        if self.live:
            self._bars.update(self._whole, note=self._left())
        elif time.monotonic() - self._told >= _EVERY and self._facts:
            runs = [f"{job.label}: {_epoch(facts)}" for job, facts in self._facts.items()]
            left = self._left()
            self._say(
                f"{self.title}: {self.ended}/{self.total} done; {'; '.join(runs)}" + (f"; {left}" if left else "")
            )

    def _left(self) -> str:
        share = sum(facts["epoch"] / max(facts["epochs"], 1) for facts in self._facts.values() if facts)
        done = (self.ended + share) / max(self.total, 1)
        if done <= 0 or done >= 1:
            return ""
        seconds = (time.monotonic() - self._since) * (1 - done) / done
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"

    def _say(self, text: str) -> None:
        self._told = time.monotonic()
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)


def _epoch(facts: dict[str, Any]) -> str:
    if not facts:
        return "starting"
    score = _score(facts)
    return f"epoch {facts['epoch']}/{facts['epochs']}" + (f", {score}" if score else "")


def _score(facts: dict[str, Any]) -> str:
    best, name = facts.get("best"), facts.get("metric")
    return "" if best is None else f"best {name or 'score'} {best:.3g}"
