"""An nnU-Net results folder as the source of a bundle: weights, network, and what it does to images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_transfer.bundle.fit import DataFit
from monai_transfer.bundle.kept_pipeline import KeptPipeline
from monai_transfer.errors import InputError
from monai_transfer.files import sha256_file
from monai_transfer.nnunet.checkpoints import plans_in_checkpoint
from monai_transfer.nnunet.model import NnunetModel, is_nnunet_folder, read_model
from monai_transfer.nnunet.network import network_config, turned_weights
from monai_transfer.nnunet.pipeline import STEPS, inferer_config, preprocessing_configs
from monai_transfer.weights import Source
from monai_transfer.weights.channels import same_channel

__all__ = [
    "kept_pipeline", "nnunet_folds", "nnunet_model", "nnunet_source", "own_validation", "source_network_config",
]  # fmt: skip


def nnunet_model(source: str | Path) -> NnunetModel | None:
    """What the folder or checkpoint says; ``None`` where it is no nnU-Net model.

    Raises:
        InputError: it is one, and needs what is not rebuilt.
    """
    if str(source).lower() in ("none", ""):
        return None
    if Path(source).is_file() and plans_in_checkpoint(Path(source)) is not None:
        return read_model(source)
    if not is_nnunet_folder(source):
        return None
    return read_model(source)


def nnunet_source(model: NnunetModel, fold: str | None = None) -> Source:
    """The weights of a fold (default the first), in MONAI's axis order, with the names of its classes and channels."""
    fold = next(iter(model.folds)) if fold is None else fold
    file = model.folds[fold]
    return Source(
        turned_weights(model, fold),
        classes=model.labels,
        channels=model.channels,
        description=f"nnU-Net {model.name}, {model.trainer} {model.configuration}, fold {fold}",
        sha256=sha256_file(file),
    )


def nnunet_folds(model: NnunetModel) -> tuple[dict[str, Source], str]:
    """Further folds by their names, and what is to be said of them; nothing where the model has one.

    The untouched source is what nnU-Net predicts, the mean of all folds. Fine-tuning goes on from one network: training
    each of them would take as many times as long, and is what several bundles (one from each fold) are for.
    """
    first, *others = model.folds
    if not others:
        return {}, ""
    count = len(model.folds)
    said = (
        f"The untouched source is the mean of {count} folds ({', '.join(model.folds)}), as nnU-Net predicts, at "
        f"{count} times the time; fine-tuned and adapted networks start from fold {first} and are one network each."
    )
    return {fold: nnunet_source(model, fold) for fold in others}, said


def own_validation(model: NnunetModel) -> str:
    """What nnU-Net's ``summary.json`` says of the model, as a sentence; empty where there is none."""
    if not model.own_dice:
        return ""
    folds = ", ".join(f"fold {fold} {dice:.3f}" for fold, dice in model.own_dice.items())
    what = f"{model.name} {model.configuration}".strip()
    return f"nnU-Net's own validation of the source ({what}), on its own cases: mean foreground Dice {folds}."


def source_network_config(model: NnunetModel, classes: int, fit: DataFit) -> dict[str, Any]:
    """The network for the data's classes and channels.

    Raises:
        InputError: the data have other dimensions than the model.
    """
    if model.dims != fit.spatial_dims:
        fault = f"the model is {model.dims}D and the data are {fit.spatial_dims}D"
        hint = "take a 3d_fullres model" if model.dims == 2 else "take a 2d model"
        raise InputError(fault, path=model.folder, hint=hint)
    config = network_config(model)
    outputs, inputs = "out_channels", "in_channels"
    if not model.architecture.in_monai:
        outputs, inputs = "num_classes", "input_channels"
    return {**config, outputs: classes, inputs: fit.channels}


def kept_pipeline(model: NnunetModel, channels: list[str]) -> KeptPipeline:
    """Cropping, normalisation, resampling and tiles as nnU-Net has them, but for the label map's values.

    Args:
        model: what ``read_model`` gave. channels: names of the data's channels, in order.

    Raises:
        InputError: the data have other channels, or the same in another order.
    """
    ours, theirs = [same_channel(name) for name in channels], [same_channel(name) for name in model.channels]
    named = f"{', '.join(channels)} here, {', '.join(model.channels)} in the model"
    if len(ours) != len(theirs):
        fault = f"the data have {len(ours)} channels and the nnU-Net model {len(theirs)} ({named})"
        raise InputError(fault, path=model.folder, hint="give it the images that it was trained on, or --source none")
    if ours != theirs and set(ours) == set(theirs):
        fault = f"the channels stand in another order ({named})"
        raise InputError(fault, path=model.folder, hint="write the manifest with the model's order of images")
    image, both = (preprocessing_configs(model, label=label, load=False) for label in (False, True))
    return KeptPipeline(
        image=image,
        both=both,
        inferer=inferer_config(model) | {"mirror_axes": []},
        module=STEPS,
        script="scripts/nnunet_steps.py",
        said="nnU-Net's own steps; mirror_axes [0, 1, 2] averages mirrored views, as nnUNetv2_predict does by default",
        facts={
            "nnunet": {
                "data_set": model.name,
                "configuration": model.configuration,
                "trainer": model.trainer,
                "spacing": model.spacing,
                "patch": model.patch,
                "mirror_axes": model.mirror_axes,
                "validation_dice_by_nnunet": model.own_dice,
            }
        },
    )
