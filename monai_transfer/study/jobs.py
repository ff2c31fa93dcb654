"""One run of a study as a job: what it runs, where, and under which settings. Light: workers start with this."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.runs.record import read_record

__all__ = ["Job", "refuse_changed", "settings_of"]


@dataclass(frozen=True, eq=False)
class Job:
    """One run: a bundle, a workflow, overrides with at least ``output_dir``, and its name in what is printed.

    >>> Job("bundle", "train", {"output_dir": "runs/train-0"}, "fine_tuned, seed 0").output.name
    'train-0'
    """

    bundle: str
    workflow: str
    overrides: dict[str, Any]
    label: str

    @property
    def output(self) -> Path:
        """Its run folder."""
        return Path(self.overrides["output_dir"])

    @property
    def log(self) -> Path:
        """Beside the run folder: that one may be moved or cleared while its run starts."""
        return self.output.with_name(self.output.name + ".log")


def settings_of(job: Job) -> dict[str, Any]:
    """What decides a job's result: its workflow, overrides, and the bundle's configs as they are now.

    Absolute paths are told from the run folder, so that a study may be moved. References are told in one spelling:
    MONAI writes ``@a::b`` for ``@a#b`` into a config that it resolves, and both name the same entry.
    """
    told = {}
    for key, value in job.overrides.items():
        if key not in ("output_dir", "fresh"):
            if isinstance(value, (str, Path)):
                value = os.path.relpath(value, job.output) if Path(value).is_absolute() else str(value)
            told[key] = value if isinstance(value, (bool, int, float, type(None))) else str(value)
    files = sorted(Path(job.bundle).glob("configs/*.yaml"))
    configs = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
    return _as_told({"workflow": job.workflow, "configs": configs, **told})


_REFERENCE = re.compile(r"(?<=@)\w+(?:(?:#|::)\w+)+")


def _one_spelling(text: str) -> str:
    return text.replace("::", "#")


def _as_told(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        _one_spelling(key): _REFERENCE.sub(lambda found: _one_spelling(found[0]), value)
        if isinstance(value, str)
        else value
        for key, value in settings.items()
    }


def refuse_changed(job: Job) -> None:
    """Refuse a finished run that was made under other settings than are asked for now.

    Raises:
        InputError: which settings differ. Runs without a record of them pass.
    """
    record = (read_record(job.output) or {}).get("job")
    asked = settings_of(job)
    if record is None:
        return
    record = _as_told(record)
    words = []
    for key in sorted(record.keys() | asked.keys()):
        if record.get(key) != asked.get(key):
            before, now = (str(side.get(key, "not set")) for side in (record, asked))
            words.append("the bundle's configs" if key == "configs" else f"{key} (it was {before}, now {now})")
    if not words:
        return
    raise InputError(
        f"is finished, under other settings: {', '.join(words)}",
        path=job.output,
        hint="give another --out, or delete that folder to run it again",
    )
