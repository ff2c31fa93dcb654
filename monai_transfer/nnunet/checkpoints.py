"""The checkpoints of an nnU-Net model: where they lie, and what they say besides their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from monai_transfer.errors import InputError
from monai_transfer.weights.dialects import find_state_dicts
from monai_transfer.weights.reading import read_checkpoint

__all__ = ["CheckpointFacts", "checkpoint_facts", "find_folds", "fold_weights", "plans_in_checkpoint", "tensor_names"]

_KINDS = ("final", "best", "latest")


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint says: nnU-Net's configuration and trainer, and the axes that training mirrored along."""

    configuration: str
    trainer: str
    mirror_axes: tuple[int, ...] | None


@dataclass(frozen=True)
class PlansInside:
    """What nnU-Net v2 writes into a checkpoint beside the weights: its plans, ``dataset.json``, and the fold."""

    plans: dict[str, Any]
    dataset: dict[str, Any]
    fold: str
    facts: CheckpointFacts


def plans_in_checkpoint(file: Path) -> PlansInside | None:
    """The plans within a checkpoint; ``None`` where it is no checkpoint of nnU-Net v2.

    Raises:
        InputError: the file cannot be read as plain data.
    """
    content: Any = read_checkpoint(file)[0]
    arguments = content.get("init_args") if isinstance(content, Mapping) else None
    if not isinstance(arguments, Mapping):
        return None
    plans, dataset = arguments.get("plans"), arguments.get("dataset_json")
    if not isinstance(plans, Mapping) or not isinstance(dataset, Mapping) or "configuration" not in arguments:
        return None
    return PlansInside(dict(plans), dict(dataset), str(arguments.get("fold", "0")), _facts(content))


def find_folds(folder: Path, wanted: Sequence[str] | None) -> tuple[dict[str, Path], str]:
    """Fold -> checkpoint file, and which kind of checkpoint: the final one where every fold has it.

    Of a results folder ``fold_*/checkpoint_final.pth``, of a converted bundle ``models/fold_*/model.pt``. Without
    ``wanted``, ``fold_all`` is taken only where there is no other, as nnU-Net does.

    Raises:
        InputError: a fold is not there, or has no checkpoint.
    """
    names = sorted(place.name.removeprefix("fold_") for place in folder.glob("fold_*") if place.is_dir())
    if wanted is not None:
        chosen = [str(name).removeprefix("fold_") for name in wanted]
        missing = next((name for name in chosen if name not in names), None)
        if missing is not None:
            have = ", ".join(names) or "none"
            raise InputError(f"there is no fold {missing!r}", path=folder, hint=f"there are {have}")
    else:
        chosen = [name for name in names if name != "all"] or names
    for kind in _KINDS:
        files = {name: folder / f"fold_{name}" / f"checkpoint_{kind}.pth" for name in chosen}
        present = {name: file for name, file in files.items() if file.is_file()}
        if present and (wanted is None or len(present) == len(chosen)):
            return present, kind
    converted = {name: folder / f"fold_{name}" / "model.pt" for name in chosen}
    converted = {name: file for name, file in converted.items() if file.is_file()}
    if converted:
        return converted, "final"
    if (folder / "model.pt").is_file():
        return {"0": folder / "model.pt"}, "final"
    raise InputError("holds no checkpoint_final.pth in a fold", path=folder, hint="let the training finish, or copy it")


def checkpoint_facts(folder: Path, file: Path) -> CheckpointFacts:
    """What the checkpoint says; of a bundle of MONAI's converter, its ``nnunet_checkpoint.pth``.

    Raises:
        InputError: a file cannot be read as plain data.
    """
    beside = folder / "nnunet_checkpoint.pth"
    content: Any = read_checkpoint(beside if beside.is_file() else file)[0]
    if not isinstance(content, Mapping):
        raise InputError("is no checkpoint of nnU-Net", path=file, hint="name a results folder of nnU-Net v2")
    return _facts(content)


def _facts(content: Mapping[str, Any]) -> CheckpointFacts:
    arguments = content.get("init_args") or {}
    axes = content.get("inference_allowed_mirroring_axes")
    return CheckpointFacts(
        str(arguments.get("configuration", "")) if isinstance(arguments, Mapping) else "",
        str(content.get("trainer_name", "")),
        None if axes is None else tuple(int(axis) for axis in axes),
    )


def fold_weights(file: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, each tensor under its first name.

    Raises:
        InputError: the file cannot be read, or holds none.
    """
    weights = _weights(file)
    # the decoder holds its encoder, and blocks their layers, a second time
    return {k: t for k, t in weights.items() if "decoder.encoder." not in k and ".all_modules." not in k}


def tensor_names(file: Path) -> list[str]:
    """All names in a checkpoint, in order, also those under which a tensor stands again.

    Raises:
        InputError: the file cannot be read, or holds no weights.
    """
    return list(_weights(file))


def _weights(file: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = next(iter(find_state_dicts(read_checkpoint(file)[0]).values()))
    return found
