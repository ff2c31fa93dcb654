"""Checkpoints that survive a kill, and resuming that gives what the uninterrupted run gives.

``models/last.pt`` holds everything that resuming needs, ``models/model.pt`` the bare weights of the best epoch; where a
method's teacher is what is handed on, ``models/student.pt`` is the network that learnt from it. Each is
written to a temporary name, flushed, renamed over the old one, and has its SHA-256 beside it: bit flips in a
checkpoint load silently otherwise. The hash file names the new and the old hash while the rename happens, so a kill at
any point leaves a pair that verifies.
"""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_transfer.engine.processes import process_rank
from monai_transfer.engine.state import bare_network, beside, deployed_weights, stateful_of
from monai_transfer.errors import InputError
from monai_transfer.files import sha256_file, write_bytes, write_text
from monai_transfer.runs.progress import tell

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

logger = logging.getLogger(__name__)


def _hash_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def save_checkpoint(content: Any, path: str | Path) -> None:
    """``torch.save`` that never leaves a broken file under ``path``, with its SHA-256 in ``<path>.sha256``.

    Tensors are written from the CPU: a file made on a GPU opens on a machine without, whoever reads it.

    Args:
        content: whatever ``torch.save`` takes.
        path: of the file; replaced whole or not at all.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "last.pt"
    >>> save_checkpoint({"epoch": 3, "weights": torch.ones(2)}, path)
    >>> load_checkpoint(path)
    {'epoch': 3, 'weights': tensor([1., 1.])}
    """
    path = Path(path)
    buffer = io.BytesIO()
    torch.save(_on_cpu(content), buffer)
    data = buffer.getvalue()
    new = hashlib.sha256(data).hexdigest()
    hash_path = _hash_path(path)
    old = hash_path.read_text().split()[:1] if hash_path.is_file() and path.is_file() else []
    write_text(hash_path, "\n".join(f"{value}  {path.name}" for value in [*old, new]) + "\n")
    write_bytes(path, data)
    write_text(hash_path, f"{new}  {path.name}\n")


def _on_cpu(content: Any) -> Any:
    if isinstance(content, torch.Tensor):
        return content.cpu()
    if isinstance(content, dict):
        moved = copy.copy(content)  # keeps a state dict's own type and version numbers
        moved.update({key: _on_cpu(value) for key, value in content.items()})
        return moved
    if type(content) in (list, tuple):
        return type(content)(_on_cpu(value) for value in content)
    return content


def load_checkpoint(path: str | Path, map_location: Any = "cpu") -> Any:
    """Read a checkpoint with ``weights_only=True`` after verifying its hash, where there is one.

    Args:
        path: of the file.
        map_location: as of ``torch.load``.

    Raises:
        InputError: the bytes are not those that were written, or the file is no checkpoint.

    One bit of the weights has turned on the disk; torch alone would load it:

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "last.pt"
    >>> save_checkpoint(torch.zeros(8), path)
    >>> content = bytearray(path.read_bytes())
    >>> content[-200] ^= 1
    >>> _ = path.write_bytes(content)
    >>> try:
    ...     load_checkpoint(path)
    ... except InputError as error:
    ...     print(error.fault)
    the checkpoint is damaged: its SHA-256 differs from the one written with it
    """
    path = Path(path)
    hash_path = _hash_path(path)
    if hash_path.is_file() and sha256_file(path) not in hash_path.read_text().split():
        raise InputError(
            "the checkpoint is damaged: its SHA-256 differs from the one written with it",
            path=path,
            hint="restore it from a copy, or start over with --fresh",
        )
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        raise InputError(
            f"not a readable checkpoint ({type(error).__name__})",
            path=path,
            hint="restore it from a copy, or start over with --fresh",
        ) from error


class Checkpoint:
    """Save after every epoch; resume at the start where an unfinished run is found.

    Stands after the validation handler in the trainer's list. It keeps the network, optimizer, gradient scaler, the
    state of every handler that registered (``engine.state.register_stateful``), ``save`` and the best score.

    Args:
        output_dir: the run folder.
        validator: the evaluator whose key metric selects the best epoch; ``None`` selects the last one. Without a
            validation case, or when its metric is never a number, the last epoch is kept, and the log says so.
        save: further objects with ``state_dict``, by name, e.g. the learning-rate scheduler.
        resume: load ``models/last.pt`` when it is there. Only done once, so that federated rounds on the same trainer
            keep the weights that the server sent.
        mode: ``"max"`` or ``"min"``: which direction of the key metric is better.
        run_folder: the ``RunFolder`` that opens this run. Where it is given but was not started, somebody else runs the
            trainer (a federated client, round by round): then the weights in memory are that one's, and neither a
            former run nor the best epoch is loaded over them.

    Raises:
        InputError: ``mode`` is neither ``max`` nor ``min``, or (as the training starts) the checkpoint to resume is
            damaged or of another network.

    >>> import tempfile
    >>> from ignite.engine import Events
    >>> from monai.engines import SupervisedTrainer
    >>> net, folder = torch.nn.Linear(2, 1), tempfile.mkdtemp()
    >>> batches = [{"image": torch.ones(4, 2), "label": torch.zeros(4, 1)}]
    >>> def trainer(epochs):
    ...     return SupervisedTrainer(torch.device("cpu"), epochs, batches, net, torch.optim.SGD(net.parameters(), 0.1),
    ...                              torch.nn.MSELoss(), train_handlers=[Checkpoint(folder)])
    >>> trainer(1).run()
    >>> sorted(path.name for path in (Path(folder) / "models").iterdir())
    ['last.pt', 'last.pt.sha256', 'model.pt', 'model.pt.sha256']
    >>> longer = trainer(3)
    >>> seen = []
    >>> _ = longer.add_event_handler(Events.EPOCH_STARTED, lambda engine: seen.append(engine.state.epoch))
    >>> longer.run()
    >>> seen  # the first epoch is there already
    [2, 3]
    """

    def __init__(
        self,
        output_dir: str | Path,
        validator: Engine | None = None,
        save: Mapping[str, Any] | None = None,
        resume: bool = True,
        mode: str = "max",
        run_folder: Any = None,
    ) -> None:
        if mode not in ("max", "min"):
            raise InputError(f"mode must be 'max' or 'min', not {mode!r}", hint="min where less is better")
        self.models = Path(output_dir) / "models"
        self.validator, self.save, self.resume, self.mode = validator, dict(save or {}), resume, mode
        self.best_score = -math.inf
        self.best_epoch = 0
        self._score: float | None = None
        self._run_folder = run_folder

    @property
    def _own_run(self) -> bool:
        return self._run_folder is None or self._run_folder.started

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer, and to the validator if there is one."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)
        engine.add_event_handler(Events.COMPLETED, self._load_best)
        if self.validator is not None:
            self.validator.add_event_handler(Events.COMPLETED, self._validated)

    def _validated(self, validator: Any) -> None:
        value = validator.state.metrics.get(validator.state.key_metric_name)
        score = float("nan") if value is None else float(value)
        if not math.isfinite(score):
            logger.warning("the validation metric is %s: this epoch cannot become the best", score)
            return
        self._score = score if self.mode == "max" else -score

    # ------------------------------------------------------------------ save
    def _content(self, engine: Any) -> dict[str, Any]:
        scaler = getattr(engine, "scaler", None)
        return {
            "epoch": int(engine.state.epoch),
            "iteration": int(engine.state.iteration),
            "network": bare_network(engine).state_dict(),
            "optimizer": engine.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "handlers": {name: item.state_dict() for name, item in stateful_of(engine).items()},
            "save": {name: item.state_dict() for name, item in self.save.items()},
            "best": {"score": float(self.best_score), "epoch": int(self.best_epoch)},
        }

    def _save(self, engine: Any) -> None:
        score, self._score = self._score, None
        if self.validator is None or (score is None and self.best_score == -math.inf):
            better = True  # nothing better is known than the newest
        else:
            better = score is not None and score > self.best_score
            if better:
                assert score is not None
                self.best_score = score
        if better:
            self.best_epoch = int(engine.state.epoch)
        if process_rank() != 0:
            return
        if better:
            with deployed_weights(engine):
                network = bare_network(engine)
                raw = network.state_dict()
                exported = export_state(network)
                save_checkpoint(exported, self.models / "model.pt")
                if exported.keys() != raw.keys():
                    save_checkpoint(raw, self.models / "best.pt")
            for name, swapped in beside(engine).items():
                with swapped() as there:
                    if there:
                        save_checkpoint(export_state(bare_network(engine)), self.models / f"{name}.pt")
        save_checkpoint(self._content(engine), self.models / "last.pt")
        sign = 1.0 if self.mode == "max" else -1.0
        tell(
            epoch=int(engine.state.epoch),
            epochs=int(engine.state.max_epochs),
            metric=getattr(getattr(self.validator, "state", None), "key_metric_name", None),
            score=None if score is None else sign * score,
            best=None if self.best_score == -math.inf else sign * self.best_score,
        )

    # ------------------------------------------------------------------ load
    def _start(self, engine: Any) -> None:
        path = self.models / "last.pt"
        resume, self.resume = self.resume, False
        if not resume or not path.is_file() or not self._own_run:
            return
        content = load_checkpoint(path, map_location=engine.state.device)
        try:
            bare_network(engine).load_state_dict(content["network"])
            engine.optimizer.load_state_dict(content["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise InputError(
                f"this run was started with another network or optimizer ({str(error).splitlines()[0]})",
                path=path,
                hint="give another output_dir, or start over with --fresh",
            ) from error
        scaler = getattr(engine, "scaler", None)
        if scaler is not None and content["scaler"]:
            scaler.load_state_dict(content["scaler"])
        for source, objects in ((content["handlers"], stateful_of(engine)), (content["save"], self.save)):
            for name, item in objects.items():
                if name in source:
                    item.load_state_dict(source[name])
        self.best_score, self.best_epoch = content["best"]["score"], content["best"]["epoch"]
        engine.state.epoch, engine.state.iteration = content["epoch"], content["iteration"]
        logger.info("resumed %s after epoch %d", path, content["epoch"])

    def _load_best(self, engine: Any) -> None:
        """At the end the network holds the best epoch's weights, for the test that follows."""
        if self.best_epoch == int(engine.state.epoch) or not self._own_run:
            return
        raw = self.models / "best.pt"
        path = raw if raw.is_file() else self.models / "model.pt"
        if path.is_file():
            bare_network(engine).load_state_dict(load_checkpoint(path, map_location=engine.state.device))


def export_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state dict for deployment: of the original architecture, whatever a strategy injected for training.

    A strategy that injects sets ``network.transfer_export``, a function of the network (see ``strategies.lora``).

    Args:
        network: as trained.

    >>> from monai_transfer.strategies import Lora
    >>> network = Lora(rank=1).apply(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)))
    >>> "0.lora_A" in network.state_dict(), sorted(export_state(network))  # merged for deployment
    (True, ['0.bias', '0.weight', '1.bias', '1.weight'])
    """
    export = getattr(network, "transfer_export", None)
    return network.state_dict() if export is None else export(network)
