"""``Run``: a finished run folder, read back."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_transfer.content_kinds import refuse_odd_fields
from monai_transfer.errors import InputError
from monai_transfer.metrics.base import Metric
from monai_transfer.runs.kinds import RECORD, SUMMARY, WEIGHTS
from monai_transfer.safe_parse import read_json
from monai_transfer.tables import plain_cell
from monai_transfer.tasks import TASKS, Task, judged_tasks

__all__ = ["Run"]

_DEFAULT_ARM = {"adapt": "adapted", "evaluate": "source"}


@dataclass
class Run:
    """One training or evaluation.

    Args:
        folder: where it lies.
        record: run.json.
        cases: rows of cases.csv: ``case, patient, site``, then what was measured; cells as text.
        curves: rows of metrics.csv (``epoch, split``, then losses and metrics); empty where nothing was trained.
        weights: weights.json, if there is one.
        unit_of_length: of its metrics: ``mm``, or ``px`` where the images have no physical size.
        guesses: of a segmentation, what guessing is worth on these cases (``evaluation.guesses``).

    >>> record = {"task": "segmentation", "arm": "scratch", "seed": 0, "labels": {"0": "background", "1": "liver"}}
    >>> run = Run(Path("runs/train-0"), record, [{"case": "c1", "patient": "p1", "site": "north", "dice": "0.8"}])
    >>> run.arm, run.seed, run.metric("dice").heading
    ('scratch', 0, 'Dice')
    """

    folder: Path
    record: dict[str, Any]
    cases: list[dict[str, str]]
    curves: list[dict[str, str]] = field(default_factory=list)
    weights: dict[str, Any] | None = None
    unit_of_length: str = "mm"
    guesses: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a run folder.

        Raises:
            InputError: it is no run folder, the run is not finished, or a file in it is malformed.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError("is not a folder", path=folder, hint="name a run folder")
        path = folder / "run.json"
        if not path.is_file():
            raise InputError("has no run.json, so it is no run folder", path=folder, hint="name the folder of one run")
        record = _json(path)
        status = record.get("status")
        if status != "finished":
            raise InputError(
                f"the run is not finished (status: {status})",
                path=folder,
                hint="continue it with the same `run` command, or leave it out",
            )
        if record.get("task") not in judged_tasks():
            hint = "compare runs that were tested on labelled cases"
            raise InputError(
                f"task {record.get('task')!r} is not one of {', '.join(judged_tasks())}", path=path, hint=hint
            )
        refuse_odd_fields(record, RECORD, path, _HINT)
        if not isinstance(record.get("seed"), int):
            raise InputError(
                f"seed {record.get('seed')!r} is not a whole number",
                path=path,
                hint="correct it in run.json, or run again",
            )
        cases_path = folder / "cases.csv"
        if not cases_path.is_file():
            raise InputError(
                "has no cases.csv: nothing was tested", path=folder, hint="run `evaluate` into this folder"
            )
        cases = _table(cases_path, ("case", "patient"))
        if not cases:
            raise InputError("holds no case", path=cases_path, hint="test the run on a split that holds cases")
        names = [row["case"] for row in cases]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(
                f"holds the case {twice} twice",
                path=cases_path,
                hint="test the run again, with a manifest that names each case once",
            )
        summary_path = folder / "summary.json"
        summary = _json(summary_path) if summary_path.is_file() else {}
        refuse_odd_fields(summary, SUMMARY, summary_path, _HINT)
        curves_path, weights_path = folder / "metrics.csv", folder / "weights.json"
        weights = _json(weights_path) if weights_path.is_file() else None
        refuse_odd_fields(weights or {}, WEIGHTS, weights_path, _HINT)
        return cls(
            folder,
            record,
            cases,
            _table(curves_path, ("epoch", "split")) if curves_path.is_file() else [],
            weights,
            str(summary.get("unit_of_length") or "mm"),
            summary.get("guesses") or {},
        )

    @property
    def arm(self) -> str:
        """The arm's name; without one, what the workflow amounts to."""
        name = self.record.get("arm")
        if name == "fine_tuned" and self.record.get("joint"):
            return "joint"  # a bundle's `train` says so of itself, whatever its recipe
        if name:
            return str(name)
        workflow = str(self.record.get("workflow") or "train")
        trained = "fine_tuned" if self.record.get("pretrained") else "scratch"
        return _DEFAULT_ARM.get(workflow, trained if workflow == "train" else workflow)

    @property
    def seed(self) -> int:
        return int(self.record["seed"])

    @property
    def task(self) -> str:
        return str(self.record["task"])

    @property
    def kind(self) -> Task:
        """The task's description."""
        return TASKS[self.task]

    def metric(self, name: str) -> Metric:
        """The metric of a column, in this run's unit of length."""
        return self.kind.metric(name, self.unit_of_length)

    @property
    def start(self) -> str | None:
        """SHA-256 of the weights that it started from, as they came; None where it had none, or does not say."""
        return self.record.get("source_sha256") or self.record.get("pretrained_sha256")

    @property
    def labelled(self) -> int | None:
        """Labelled target cases that were learned from; None if it is not recorded."""
        workflow = self.record.get("workflow")
        if workflow == "adapt":  # its training cases are the source's
            return self.record.get("labelled_target", 0)
        return 0 if workflow == "evaluate" else self.record.get("labelled_train")

    @property
    def chosen_on(self) -> int | None:
        """Labelled target cases that the best epoch was chosen on."""
        last = self.record.get("selected_by", "") in (None, "last epoch")
        if last or self.record.get("workflow") in ("adapt", "evaluate"):
            return 0
        return self.record.get("labelled_validation")

    @property
    def steps(self) -> int | None:
        """Optimizer steps; None if it is not recorded."""
        return 0 if self.record.get("workflow") == "evaluate" else self.record.get("steps")

    @property
    def name(self) -> str:
        """The folder's own name: paths of a machine do not belong in a report."""
        return self.folder.resolve().name


_HINT = "it is no file that a run wrote: leave the run out"


def _json(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, Mapping):
        raise InputError("does not hold a JSON object", path=path, hint="restore it from a copy, or run again")
    return dict(content)


def _table(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"is not a readable table ({error})", path=path, hint="restore it from a copy, or test the run again"
        ) from error
    missing = [name for name in needed if name not in (reader.fieldnames or [])]
    if missing:
        raise InputError(f"lacks the column {missing[0]!r}", path=path, hint="test the run again")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise InputError(
                f"line {number} has another number of cells than the header",
                path=path,
                hint="restore it from a copy, or test the run again",
            )
    return [{name: plain_cell(value) for name, value in row.items()} for row in rows]
