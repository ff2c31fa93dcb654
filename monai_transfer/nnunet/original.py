"""What an nnU-Net folder needs beside weights, kept in a bundle that was made from one, so that it can be written back.

``models/nnunet.json``: the plans, ``dataset.json``, and what the checkpoint said; data alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.nnunet.checkpoints import CheckpointFacts, checkpoint_facts, plans_in_checkpoint, tensor_names
from monai_transfer.nnunet.model import NnunetModel, described_model
from monai_transfer.safe_parse import read_json

__all__ = ["Original", "canonical", "original_of", "read_original"]


@dataclass(frozen=True)
class Original:
    """An nnU-Net model without its weights.

    Attributes:
        plans, dataset: the content of ``plans.json`` and ``dataset.json``.
        configuration, trainer: nnU-Net's names of them. folds: of the weights, in order.
        mirror_axes: of nnU-Net's axes, those that training mirrored along.
        tensors: the names in its checkpoint, in order; some tensors stand there under several (``canonical``).
    """

    plans: dict[str, Any]
    dataset: dict[str, Any]
    configuration: str
    trainer: str
    folds: list[str]
    mirror_axes: list[int] | None
    tensors: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def model(self, place: Path) -> NnunetModel:
        """What it describes.

        Args:
            place: the file that it was read from, for errors.

        Raises:
            InputError: its content is no model that is rebuilt here.
        """
        axes = None if self.mirror_axes is None else tuple(self.mirror_axes)
        facts = CheckpointFacts(self.configuration, self.trainer, axes)
        return described_model(
            self.plans, self.dataset, facts, place.parent, {}, plans_place=place, dataset_place=place
        )  # fmt: skip


def original_of(model: NnunetModel) -> Original:
    """Of a model that was read, by its first fold.

    Raises:
        InputError: a file of it cannot be read.
    """
    file = next(iter(model.folds.values()))
    inside = None if (model.folder / "plans.json").is_file() else plans_in_checkpoint(file)
    if inside is not None:
        plans, dataset, facts = inside.plans, inside.dataset, inside.facts
    else:
        plans, dataset = (read_json(model.folder / name) for name in ("plans.json", "dataset.json"))
        facts = checkpoint_facts(model.folder, file)
    axes = None if facts.mirror_axes is None else list(facts.mirror_axes)
    trainer, names = facts.trainer or "nnUNetTrainer", tensor_names(file)
    return Original(plans, dataset, model.configuration, trainer, list(model.folds), axes, names)


def read_original(path: Path) -> Original:
    """The file in a bundle.

    Raises:
        InputError: it is not what this package writes.
    """
    content = read_json(path)
    kinds = {"plans": dict, "dataset": dict, "configuration": str, "trainer": str, "folds": list, "tensors": list}
    sound = isinstance(content, Mapping) and all(isinstance(content.get(key), kind) for key, kind in kinds.items())
    axes = content.get("mirror_axes") if sound else None
    sound = sound and (axes is None or isinstance(axes, list) and all(isinstance(axis, int) for axis in axes))
    if not sound or not all(isinstance(name, str) for name in (*content["tensors"], *content["folds"])):
        raise InputError("is not what `new` writes of an nnU-Net model", path=path, hint="make the bundle again")
    return Original(**{key: content[key] for key in kinds}, mirror_axes=axes)


def canonical(name: str) -> str:
    """The first name of a tensor: the decoder holds its encoder, and blocks their layers, a second time.

    >>> canonical("decoder.encoder.stages.0.0.convs.1.all_modules.1.weight")
    'encoder.stages.0.0.convs.1.norm.weight'
    """
    name = re.sub(r"(^|\.)decoder\.encoder\.", r"\1encoder.", name)
    name = re.sub(r"\.all_modules\.0\.", ".conv.", name)
    return re.sub(r"\.all_modules\.\d+\.", ".norm.", name)  # a dropout between them has no tensors
