"""The run folder: what one training or evaluation was, written by the config, so plain ``monai.bundle run`` leaves it.

run.json, config.yaml, weights.json   written here
metrics.csv                           engine.metrics_log
models/                               engine.checkpoint
cases.csv, summary.json, figures/     report.recorder
"""

from __future__ import annotations

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
from monai.bundle import ConfigParser

from monai_transfer.errors import InputError
from monai_transfer.files import sha256_file, write_json, write_text

__all__ = ["RunFolder", "read_status"]

logger = logging.getLogger(__name__)
FORMAT = 1


def read_status(folder: str | Path) -> str | None:
    """``"running"``, ``"finished"`` or ``"failed"`` of the run in ``folder``; ``None`` where there is no run."""
    path = Path(folder) / "run.json"
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("status")
    except (ValueError, AttributeError) as error:
        raise InputError("not a readable run record", path=path, hint="delete the folder or name another") from error


def _calling_parser() -> ConfigParser | None:
    """The config parser that is instantiating us: expressions have no other way to the merged config they stand in."""
    frame = sys._getframe(1)
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, ConfigParser):
            return candidate
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("monai-transfer", "monai", "torch", "numpy", "pytorch-ignite", "nibabel", "itk"):
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

    ``start`` continues an unfinished folder of the same config. A finished one is moved aside to ``<name>.1``,
    ``<name>.2`` ... (the command line refuses it before, with exit code 2); ``fresh=True`` clears it.

    Args:
        output_dir: the folder.
        info: what stands in run.json: workflow, arm, seed, task, labels, sites, counts, primary_metric ...
        manifest: path of the manifest, for its hash.
        pretrained: path of the weights that the run starts from, for its hash.
        weights: the ``WeightReport`` of loading them.
        fresh: start over.
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
        self._started: float | None = None
        parser = _calling_parser()
        self._config = dict(parser.config) if parser is not None else None

    @property
    def started(self) -> bool:
        """Whether ``start`` was called: a config's ``run`` does, a federated client or MONAI Label may not."""
        return self._started is not None

    @property
    def _writes(self) -> bool:
        return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0

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
        ignored = {"output_dir", "fresh", "bundle_root", "run", "initialize", "finalize", "arm", "cache_dir"}
        content = {key: value for key, value in self._config.items() if key not in ignored}
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def start(self) -> None:
        """Write run.json (status "running"), config.yaml and weights.json."""
        again = self.started  # once more in the same process
        self._started = time.monotonic()
        if self._writes:
            self._open(again)
        if dist.is_available() and dist.is_initialized():
            dist.barrier()  # no rank may look for a checkpoint before the folder is cleared or moved

    def _open(self, again: bool) -> None:
        status = read_status(self.folder)
        record_path = self.folder / "run.json"
        previous: dict[str, Any] = {}
        if not again and status is not None:
            previous = json.loads(record_path.read_text(encoding="utf-8"))
            if self.fresh:
                shutil.rmtree(self.folder)
                previous = {}
            elif status == "finished":
                number = 1
                while (moved := self.folder.with_name(f"{self.folder.name}.{number}")).exists():
                    number += 1
                self.folder.replace(moved)
                logger.warning("%s holds a finished run: moved it to %s", self.folder, moved)
                previous = {}
            elif previous.get("config_sha256") != self._config_hash():
                raise InputError(
                    "holds an unfinished run of another configuration",
                    path=self.folder,
                    hint="delete it to start over (`run`: --fresh), or name another (--output_dir, `study`: --out)",
                )
        self.folder.mkdir(parents=True, exist_ok=True)
        text = self._config_text()
        if text is not None:
            write_text(self.folder / "config.yaml", text)
        if self.weights is not None:
            write_json(self.folder / "weights.json", self.weights.to_dict())
        pretrained = Path(self.pretrained) if self.pretrained else None
        manifest = Path(self.manifest) if self.manifest else None
        record = {
            "format": FORMAT,
            "status": "running",
            **self.info,
            "pretrained": pretrained.name if pretrained else None,
            "pretrained_sha256": sha256_file(pretrained) if pretrained and pretrained.is_file() else None,
            "manifest_sha256": sha256_file(manifest) if manifest and manifest.is_file() else None,
            "config_sha256": self._config_hash(),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "versions": _versions(),
            "machine": _machine(),
            "process": os.getpid(),
            "started": previous.get("started", _now()),
            "resumed": [*previous.get("resumed", []), _now()] if previous else [],
            "ended": None,
        }
        write_json(record_path, record)

    def finish(self) -> None:
        """Set the status to "finished"."""
        self._end("finished")

    def _end(self, status: str) -> None:
        if not self._writes:
            return
        path = self.folder / "run.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        seconds = time.monotonic() - self._started if self._started is not None else None
        record |= {"status": status, "ended": _now(), "seconds": round(seconds, 1) if seconds is not None else None}
        write_json(path, record)
