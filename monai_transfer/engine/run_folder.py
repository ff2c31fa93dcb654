"""The run folder: what one training or evaluation was, written by the config, so plain ``monai.bundle run`` leaves it.

run.json, config.yaml, weights.json   written here
metrics.csv                           engine.metrics_log
models/                               engine.checkpoint
cases.csv, summary.json, figures/     report.recorder
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml

from monai_transfer.engine import processes
from monai_transfer.engine.merged_config import merged_config
from monai_transfer.errors import InputError, describe
from monai_transfer.files import clear_leftovers, sha256_file, write_bytes, write_json, write_text
from monai_transfer.runs.lock import LOCK_NAME, FolderLock, holder
from monai_transfer.runs.prolonging import EPOCHS, IGNORED, differences, epochs_asked, is_longer
from monai_transfer.runs.ranks import Rank, first_ended
from monai_transfer.runs.record import mark, read_record, read_status, what_is_kept
from monai_transfer.stopping import at_signal, at_stop, deferred, keeps, kept, stopped_by

__all__ = ["RunFolder", "close_open_runs", "read_status"]

logger = logging.getLogger(__name__)
FORMAT = 1


_open_runs: list[RunFolder] = []


def close_open_runs(error: BaseException | None) -> None:
    """Put into the records of this process's unfinished runs how they ended, and give their folders free.

    Args:
        error: what ended them: an interrupt makes them ``interrupted``, anything else ``failed``, with the reason.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "run"
    >>> RunFolder(folder, {"workflow": "train"}).start()
    >>> close_open_runs(ValueError("the loss is NaN"))
    >>> read_status(folder), json.loads((folder / "run.json").read_text())["reason"]
    ('failed', 'ValueError: the loss is NaN')
    """
    for run in list(_open_runs):
        run.close(error)


@atexit.register
def _at_exit() -> None:
    """Under plain ``monai.bundle run`` nobody else tells: the interpreter keeps the error that it ended with."""
    if _open_runs:
        close_open_runs(getattr(sys, "last_value", None) or KeyboardInterrupt())


processes.when_failed.append(close_open_runs)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("monai-transfer", "monai", "torch", "numpy", "pytorch-ignite", "nibabel", "itk-core"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _machine() -> dict[str, Any]:
    # no host name: a run folder is passed around
    machine = {"system": platform.system(), "processor": platform.machine(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class RunFolder:
    """Open a run folder before the work and close it after: ``start()`` and ``finish()`` stand in the config's ``run``.

    ``start`` continues an unfinished folder of the same config, and prolongs one, finished or not, where only
    ``max_epochs`` has grown; the weights of a finished run are then kept as ``models/model_epoch<N>.pt``. Any other
    finished one is moved aside to ``<name>.1``, ``<name>.2`` ... (the command line refuses it before, with exit code
    2); ``fresh=True`` clears it.

    Args:
        output_dir: the folder.
        info: what stands in run.json: workflow, arm, seed, task, labels, sites, counts, primary_metric ...
        manifest: path of the manifest, for its hash.
        pretrained: path of the weights that the run starts from, for its hash.
        weights: the ``WeightReport`` of loading them.
        fresh: start over.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "run"
    >>> run = RunFolder(folder, {"workflow": "train", "arm": "fine_tuned", "seed": 0})
    >>> run.start()
    >>> read_status(folder)
    'running'
    >>> run.finish()
    >>> read_status(folder)
    'finished'
    """

    def __init__(
        self,
        output_dir: str | Path,
        info: Mapping[str, Any],
        manifest: str | Path | None = None,
        pretrained: str | Path | None = None,
        weights: Any = None,
        fresh: bool = False,
    ) -> None:
        self.folder = Path(output_dir)
        self.info, self.manifest, self.pretrained, self.weights, self.fresh = info, manifest, pretrained, weights, fresh
        self._facts: dict[str, Any] = {}
        self._started: float | None = None
        self._lock: FolderLock | None = None
        self._exits = contextlib.ExitStack()
        self._rank = 0
        self._others: list[Rank] = []
        self._first_ended: Rank | None = None
        self._config = merged_config()

    @property
    def started(self) -> bool:
        """Whether ``start`` was called: a config's ``run`` does, a federated client or MONAI Label may not."""
        return self._started is not None

    @property
    def _writes(self) -> bool:
        return self._rank == 0

    def _config_text(self) -> str | None:
        if self._config is None:
            return None
        # plain Python types only: the parser's config may hold anything that an override put there
        content = json.loads(json.dumps(self._config, default=str))
        if isinstance(root := content.get("bundle_root"), str) and root[:1] not in ("$", "@"):
            content["bundle_root"] = str(Path(root).absolute())  # it repeats the run from any folder
        if "fresh" in content:
            content["fresh"] = False  # and never clears a folder by itself
        return yaml.safe_dump(content, sort_keys=False, width=120)

    def _config_hash(self) -> str | None:
        """Hash of what decides the result: where it is written and how it is called do not."""
        if self._config is None:
            return None
        content = {key: value for key, value in self._config.items() if key not in IGNORED}
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def start(self) -> None:
        """Lock the folder; write run.json (status "running"), config.yaml and weights.json.

        Of several processes rank 0 does it, for all of them; each of the others watches, and tells where rank 0 cannot.

        Raises:
            InputError: another process writes in the folder, or it holds an unfinished run of another configuration.
        """
        again = self.started  # once more in the same process
        self._started = time.monotonic()
        grouped = dist.is_available() and dist.is_initialized()
        self._rank = dist.get_rank() if grouped else 0
        if self._writes:
            self._lock = FolderLock(self.folder).acquire()  # of rank 0, for all ranks
            try:
                self._open(again)
            except BaseException:
                self._release()
                raise
        if grouped:
            # also: no rank may look for a checkpoint before the folder is cleared or moved
            self._others = [rank for rank in processes.ranks() if rank.number != self._rank]
        if self not in _open_runs:
            _open_runs.append(self)
            if not kept():  # under plain `monai.bundle run`
                keeps(lambda: what_is_kept(self.folder))
            self._exits.enter_context(at_signal(self._look))
            self._exits.enter_context(at_stop(lambda: self.close(KeyboardInterrupt())))

    def _look(self) -> None:
        """Who is dead at the moment of a signal: later the others have followed it too."""
        self._first_ended = first_ended(self._others)

    def _open(self, again: bool) -> None:
        record_path = self.folder / "run.json"
        found = None if again else read_record(self.folder)
        previous: dict[str, Any] = found or {}
        if found is not None:
            if self.fresh:
                _empty(self.folder)
                previous = {}
            elif self._config is not None and is_longer(self.folder, self._config):
                previous = self._prolonged(found, self._config[EPOCHS])
            elif found["status"] == "finished":
                number = 1
                while (moved := self.folder.with_name(f"{self.folder.name}.{number}")).exists():
                    number += 1
                assert self._lock is not None
                self._lock.release()
                self.folder.replace(moved)
                self._lock = FolderLock(self.folder).acquire()
                logger.warning("%s holds a finished run: moved it to %s", self.folder, moved)
                previous = {}
            elif previous.get("config_sha256") != self._config_hash():
                ids = ", ".join((differences(self.folder, self._config or {}) or [])[:5])
                raise InputError(
                    "holds an unfinished run of another configuration" + (f" ({ids})" if ids else ""),
                    path=self.folder,
                    hint="delete it to start over (`run`: --fresh), or name another (--output_dir, `study`: --out)",
                )
        clear_leftovers(self.folder)
        pretrained = Path(self.pretrained) if self.pretrained else None
        manifest = Path(self.manifest) if self.manifest else None
        hashes = {
            "pretrained_sha256": sha256_file(pretrained) if pretrained and pretrained.is_file() else None,
            "manifest_sha256": sha256_file(manifest) if manifest and manifest.is_file() else None,
        }
        for key, path in (("manifest_sha256", manifest), ("pretrained_sha256", pretrained)):
            if previous.get(key) and hashes[key] and previous[key] != hashes[key]:
                fault = "has changed since the unfinished run began that would continue with it"
                hint = f"restore it, or start over (`run`: --fresh); the run is {self.folder}"
                raise InputError(fault, path=path, hint=hint)
        text = self._config_text()
        if text is not None:
            write_text(self.folder / "config.yaml", text)
        if self.weights is not None:
            write_json(self.folder / "weights.json", self.weights.to_dict())
        hashes["source_sha256"] = _origin(pretrained, hashes["pretrained_sha256"])
        record = {
            "format": FORMAT,
            "status": "running",
            **self.info,
            "pretrained": pretrained.name if pretrained else None,
            **hashes,
            "config_sha256": self._config_hash(),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "versions": _versions(),
            "machine": _machine(),
            "process": os.getpid(),
            "started": previous.get("started", _now()),
            "resumed": [*previous.get("resumed", []), _now()] if previous else [],
            **({"prolonged": previous["prolonged"]} if previous.get("prolonged") else {}),
            "ended": None,
        }
        write_json(record_path, record)

    def _prolonged(self, previous: dict[str, Any], epochs: int) -> dict[str, Any]:
        """The record of a run that is given more epochs; a finished one's weights are kept beside the new ones."""
        before, weights = epochs_asked(self.folder), self.folder / "models" / "model.pt"
        if previous["status"] == "finished" and weights.is_file():
            write_bytes(weights.with_name(f"model_epoch{before}.pt"), weights.read_bytes())
        logger.info("%s is prolonged from %s to %d epochs", self.folder, before, epochs)
        entry = {"from_epochs": before, "to_epochs": epochs, "at": _now()}
        return {**previous, "prolonged": [*previous.get("prolonged", []), entry]}

    def note(self, **facts: Any) -> None:
        """Facts that are known only when the training ends, for run.json."""
        self._facts.update(facts)

    def finish(self) -> None:
        """Set the status to "finished"."""
        self._end("finished")

    def close(self, error: BaseException | None) -> None:
        """Set the status to "interrupted" or, with the reason, to "failed", unless the run is finished.

        Where another rank has died, a signal or a broken connection is what came of that: the reason names that rank.
        """
        with deferred():
            self._close(error)

    def _close(self, error: BaseException | None) -> None:
        if self not in _open_runs:
            return
        stopped = isinstance(error, (KeyboardInterrupt, SystemExit)) or stopped_by() is not None or error is None
        if self._first_ended is None and self._others and not stopped and not isinstance(error, InputError):
            self._first_ended = first_ended(self._others, patience=1.0)
        dead = self._first_ended
        if not self._writes:
            self._end_beside(dead, None if stopped else error)
        elif dead is not None:
            self._end("failed", _killed(dead))
        elif stopped:
            self._end("interrupted")
        else:
            assert error is not None
            self._end("failed", describe(error))

    def _end_beside(self, dead: Rank | None, error: BaseException | None) -> None:
        """Of a rank that does not write: its own error, or rank 0's death, is told by nobody else."""
        with contextlib.suppress(InputError, OSError):
            if dead is None and error is not None:
                mark(self.folder, "failed", f"rank {self._rank}: {describe(error)}")
            elif dead is not None and dead.number == 0 and holder(self.folder) is None:
                mark(self.folder, "failed", _killed(dead))
        self._release()

    def _end(self, status: str, reason: str | None = None) -> None:
        if not self._writes:
            self._release()
            return
        path = self.folder / "run.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if status != "finished" and record["status"] == "failed":  # another rank has said of what
                status, reason = "failed", record.get("reason")
            seconds = time.monotonic() - self._started if self._started is not None else None
            spent = round(seconds, 1) if seconds is not None else None
            record |= {**self._facts, "status": status, "ended": _now(), "seconds": spent}
            if reason is not None:
                record["reason"] = reason
            write_json(path, record)
        except (InputError, OSError, ValueError) as error:
            if status == "finished":
                raise
            # a full disk: what ended the run is told by its own error; without a lock the run counts as interrupted
            logger.warning("the run's status could not be written: %s", error)
        finally:
            self._release()

    def _release(self) -> None:
        if self in _open_runs:
            _open_runs.remove(self)
        self._exits.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _killed(rank: Rank) -> str:
    return f"{rank} ended first: it was killed, as when memory runs out, or failed; its own output says more"


def _empty(folder: Path) -> None:
    """Delete what a folder holds, but for the lock in it."""
    for path in folder.iterdir():
        if path.name == LOCK_NAME:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _origin(pretrained: Path | None, digest: str | None) -> str | None:
    """SHA-256 of what the weights were made from, where ``source.json`` beside them says so of this very file.

    A bundle holds its source as it came, for training, and fitted to its network, for evaluation.
    """
    told = pretrained.with_name("source.json") if pretrained is not None else None
    if told is None or not told.is_file():
        return None
    try:
        content = json.loads(told.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    files = ("sha256", "fitted_sha256", "folds_sha256")
    known = isinstance(content, dict) and digest in [content.get(name) for name in files]
    return str(content["origin_sha256"]) if known and content.get("origin_sha256") else None
