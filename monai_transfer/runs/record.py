"""What a run folder says of its run: status, epochs that are kept, best score, how long ago; read without torch."""

from __future__ import annotations

import csv
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_transfer.content_kinds import refuse_odd_fields
from monai_transfer.errors import InputError
from monai_transfer.files import write_json
from monai_transfer.runs.kinds import RECORD, SUMMARY
from monai_transfer.runs.lock import holder
from monai_transfer.safe_parse import MAX_CONFIG_BYTES, read_json

__all__ = [
    "RunState",
    "collapse_alarms",
    "epochs_kept",
    "find_runs",
    "mark",
    "read_record",
    "read_status",
    "state_of",
    "what_is_kept",
]

_EPOCH = re.compile(r"[0-9]{1,9}")
_HINT = "it is no record that a run wrote: leave the run out, or delete it"


@dataclass
class RunState:
    """One run as seen now.

    Attributes:
        folder: the run folder.
        status: ``finished``, ``failed``, ``interrupted`` or ``running``.
        workflow, arm, seed: of its record.
        epoch, epochs: epochs that are kept, and those asked for, where it trains.
        metric: what ``best`` is of: the validation metric that chooses the epoch, or else the test's.
        best: the best value so far.
        age: seconds since the last sign of it.
        reason: why it failed.
    """

    folder: Path
    status: str
    workflow: str
    arm: str
    seed: int | None
    epoch: int | None
    epochs: int | None
    metric: str | None
    best: float | None
    age: float
    reason: str | None


def read_record(folder: str | Path) -> dict[str, Any] | None:
    """The content of ``run.json``; ``None`` where there is no run.

    Raises:
        InputError: the record cannot be read.
    """
    path = Path(folder) / "run.json"
    if not path.is_file():
        return None
    hint = "delete the folder or name another"
    content = read_json(path, max_bytes=MAX_CONFIG_BYTES, hint=hint)
    if not isinstance(content, dict) or not isinstance(content.get("status"), str):
        raise InputError("not a readable run record", path=path, hint=hint)
    refuse_odd_fields(content, RECORD, path, _HINT)
    return content


def read_status(folder: str | Path) -> str | None:
    """``finished``, ``failed``, ``interrupted`` or ``running`` of the run in ``folder``; ``None`` where there is none.

    A record that says ``running`` in a folder where nobody writes is of a run that was killed: ``interrupted``.
    """
    record = read_record(folder)
    if record is None:
        return None
    if record["status"] == "running" and holder(folder) is None:
        return "interrupted"
    return str(record["status"])


def mark(folder: str | Path, status: str, reason: str | None = None) -> None:
    """Put a status into the record of a run whose own process can no longer do it."""
    record = read_record(folder)
    if record is not None and record["status"] == "running":
        write_json(Path(folder) / "run.json", {**record, "status": status, "reason": reason})


def collapse_alarms(folder: str | Path) -> list[str]:
    """What the run's predictions on unlabelled target images raised an alarm about: ``validators.json``, if there."""
    path = Path(folder) / "validators.json"
    try:
        alarm = read_json(path)["alarm"] if path.is_file() else []
    except (InputError, TypeError, KeyError):
        return []  # of a run that was cut short
    return [str(message) for message in alarm] if isinstance(alarm, list) else []


def _rows(folder: Path) -> list[dict[str, str]]:
    path = folder / "metrics.csv"
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [row for row in csv.DictReader(stream) if None not in row]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []  # of a run that was cut short; `compare` names what is wrong with it


def epochs_kept(folder: str | Path) -> int:
    """How many epochs the run's checkpoint holds: a row that is younger than it is of an epoch that will run again."""
    folder = Path(folder)
    checkpoint = folder / "models" / "last.pt"
    if not checkpoint.is_file():
        return 0
    epochs = [int(row["epoch"]) for row in _rows(folder) if _EPOCH.fullmatch(row.get("epoch") or "")]
    if not epochs:
        return 0
    younger = (folder / "metrics.csv").stat().st_mtime > checkpoint.stat().st_mtime
    return max(epochs) - younger


def _asked_epochs(folder: Path) -> int | None:
    path = folder / "config.yaml"
    if not path.is_file():
        return None
    found = re.search(r"^max_epochs: (\d+)$", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return int(found[1]) if found else None


def what_is_kept(folder: str | Path) -> str:
    """What a run that is stopped now leaves, and what the same command will do."""
    folder = Path(folder)
    record = read_record(folder)
    if record is None:
        return "nothing was written yet; the same command starts again"
    kept, asked = epochs_kept(folder), _asked_epochs(folder)
    if not kept:
        again = "no epoch was finished" if asked and record.get("workflow") != "evaluate" else "nothing of it is kept"
        return f"{again}; the same command starts again"
    if asked is not None and kept >= asked:
        return f"all {kept} epochs are kept; the same command goes on with the test"
    of = f" of {asked}" if asked else ""
    return f"epoch {kept}{of} is kept; the same command continues from there"


def state_of(folder: str | Path) -> RunState:
    """Look at one run folder.

    Raises:
        InputError: it holds no run, or an unreadable record.
    """
    folder = Path(folder)
    record, status = read_record(folder), read_status(folder)
    if record is None or status is None:
        raise InputError("holds no run", path=folder, hint="name a run folder")
    signs = [p for name in ("run.json", "metrics.csv", ".lock") if (p := folder / name).is_file()]
    metric, best = _best(folder, record)
    asked = _asked_epochs(folder)
    return RunState(
        folder=folder,
        status=status,
        workflow=str(record.get("workflow") or ""),
        arm=str(record.get("arm") or ""),
        seed=record.get("seed"),
        epoch=epochs_kept(folder) if record.get("workflow") != "evaluate" else None,
        epochs=asked if record.get("workflow") != "evaluate" else None,
        metric=metric,
        best=best,
        age=max(0.0, time.time() - max(path.stat().st_mtime for path in signs)),
        reason=record.get("reason"),
    )


def _best(folder: Path, record: dict[str, Any]) -> tuple[str | None, float | None]:
    rows = [row for row in _rows(folder) if row.get("split") == "validation"]
    names = [name for row in rows for name, value in row.items() if value and name not in ("epoch", "split")]
    chosen = record.get("selected_by")
    name = chosen if chosen in names else names[0] if names else None
    if name is not None:
        values = [value for row in rows if not math.isnan(value := _number(row.get(name)))]
        if values:
            return name, max(values) if record.get("higher_is_better", True) else min(values)
    path = folder / "summary.json"
    if path.is_file():
        summary = read_json(path)
        refuse_odd_fields(summary, SUMMARY, path, _HINT)
        name = summary.get("primary_metric")
        mean = ((summary.get("metrics") or {}).get(name) or {}).get("mean")
        return (f"test {name}", mean) if mean is not None else (None, None)
    return None, None


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan


def find_runs(root: str | Path) -> Iterator[RunState]:
    """Every run in a folder, however deep, by name.

    Raises:
        InputError: a record cannot be read.
    """
    for path in sorted(Path(root).rglob("run.json")):
        yield state_of(path.parent)
