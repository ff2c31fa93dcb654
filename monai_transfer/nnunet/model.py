"""What an nnU-Net v2 results folder says of its model: plans, labels, folds; read, never run.

``plans.json`` and ``dataset.json`` are data; checkpoints are read with ``weights_only=True``. What is not rebuilt here
(cascades, trainers' own preprocessing) is refused by name. All axes and spacings here are in MONAI's order
(x, y, z of the file), which is nnU-Net's (z, y, x, then ``transpose_forward``) turned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from monai_transfer.errors import InputError
from monai_transfer.nnunet.architecture import Architecture, read_architecture
from monai_transfer.safe_parse import read_json

if TYPE_CHECKING:
    from monai_transfer.nnunet.checkpoints import CheckpointFacts

__all__ = [
    "ChannelNormalization", "NnunetModel", "described_model", "find_model_folder", "is_nnunet_folder", "read_model",
]  # fmt: skip

SCHEMES = (
    "CTNormalization",
    "ZScoreNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
READERS = {
    "SimpleITKIO": None,
    "NibabelIO": None,
    "NaturalImage2DIO": None,
    "SimpleITKIOWithReorient": "RAS",
    "NibabelIOWithReorient": "RAS",
}
"""nnU-Net's readers that MONAI's do the same as, with the orientation that they bring images to."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class ChannelNormalization:
    """How one channel is normalised.

    Attributes:
        scheme: nnU-Net's name of it. masked: z-score inside the nonzero region alone.
        low, high, mean, std: of the training data's foreground, where the scheme uses them.

    >>> ChannelNormalization("CTNormalization", low=-100.0, high=300.0, mean=100.0, std=50.0).as_config()["scheme"]
    'CTNormalization'
    """

    scheme: str
    masked: bool = False
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    std: float = 1.0

    def as_config(self) -> dict[str, Any]:
        """What ``steps.NormalizeChannelsd`` takes."""
        config: dict[str, Any] = {"scheme": self.scheme}
        if self.scheme == "CTNormalization":
            config |= {"low": self.low, "high": self.high, "mean": self.mean, "std": self.std}
        return config | ({"masked": True} if self.masked else {})


@dataclass(frozen=True)
class NnunetModel:
    """An nnU-Net model, as far as its folder tells.

    Attributes:
        folder: the results folder (``trainer__plans__configuration``), or ``models`` of a converted MONAI bundle.
        name: of its data set. configuration, trainer, plans: nnU-Net's names of them.
        folds: name -> checkpoint file. checkpoint_kind: ``final``, ``best`` or ``latest``.
        dims: spatial dimensions of the network; image_dims: of the images (a 2D network may read volumes by slices).
        channels: names of the image channels, in order.
        labels: names of the outputs, in order: with softmax the classes, background first; with regions, the regions.
        label_values: of the outputs, the label value or values in a label map.
        regions_order: values that regions are written as, in order; empty with softmax.
        ignore: the label that was not scored in training; ``None``: there is none.
        normalization: of each channel.
        spacing: mm per axis; ``None`` across the slices of a 2D network.
        patch: voxels per axis of the network. slice_axis: of volumes, the axis across a 2D network's slices.
        axes: for each spatial axis of the network in MONAI's order, the axis of nnU-Net's network.
        order, order_z: of the splines that resample images; inverse: of those that bring outputs back.
        separate: whether thick slices are treated apart, ``None``: by their thickness.
        orientation: that images are brought to first; ``None``: they stay as they are in the file.
        mirror_axes: axes of the network along which views may be mirrored; ``None``: training did not mirror.
        architecture: of the network, in nnU-Net's axis order.
        file_ending: of its images. own_dice: nnU-Net's own mean foreground Dice in validation, by fold.
    """

    folder: Path
    name: str
    configuration: str
    trainer: str
    plans: str
    folds: dict[str, Path]
    checkpoint_kind: str
    dims: int
    image_dims: int
    channels: list[str]
    labels: list[str]
    label_values: list[list[int]]
    regions_order: list[int]
    ignore: int | None
    normalization: list[ChannelNormalization]
    spacing: list[float | None]
    patch: list[int]
    slice_axis: int | None
    axes: list[int]
    order: int
    order_z: int
    inverse: tuple[int, int]
    separate: bool | None
    orientation: str | None
    mirror_axes: list[int] | None
    architecture: Architecture
    file_ending: str
    own_dice: dict[str, float]

    @property
    def has_regions(self) -> bool:
        """Whether outputs are regions that may overlap (sigmoid), not classes (softmax)."""
        return bool(self.regions_order)

    @property
    def activation(self) -> str:
        """``sigmoid`` or ``softmax``."""
        return "sigmoid" if self.has_regions else "softmax"

    def turn(self, values: Sequence[Value]) -> list[Value]:
        """Values per axis of nnU-Net's network, in MONAI's order."""
        return [values[axis] for axis in self.axes]


def is_nnunet_folder(path: str | Path) -> bool:
    """Whether a folder looks like nnU-Net's results, one fold of them, or a bundle of MONAI's converter."""
    return find_model_folder(path) is not None


def find_model_folder(path: str | Path) -> Path | None:
    """The folder with ``plans.json`` and ``dataset.json``: the path itself, above a fold of it, or in a bundle."""
    path = Path(path)
    for place in (path, path.parent if path.name.startswith("fold_") else path, path / "models"):
        if (place / "plans.json").is_file() and (place / "dataset.json").is_file():
            return place
    return None


def read_model(path: str | Path, folds: Sequence[str] | None = None) -> NnunetModel:
    """Read a results folder, one of its ``fold_*``, a checkpoint, or a bundle of ``monai.apps.nnunet``'s converter.

    Args:
        path: ``.../nnUNetTrainer__nnUNetPlans__3d_fullres``, ``.../fold_0`` in it, the bundle, or a checkpoint file:
            nnU-Net v2 writes its plans into each of them, so that one is read wherever it lies.
        folds: names (``0`` or ``fold_0``, ``all``) of those to take; default: that of the path, else all of them.

    Raises:
        InputError: it is no such folder, a file in it is damaged, or the model needs what is not rebuilt here.
    """
    from monai_transfer.nnunet.checkpoints import checkpoint_facts, find_folds, plans_in_checkpoint

    path = Path(path)
    if path.is_file():
        inside = plans_in_checkpoint(path)
        if inside is None:
            hint = "name its results folder, or the network with --network"
            raise InputError("this checkpoint does not hold nnU-Net's plans", path=path, hint=hint)
        facts, kind, folder, place = inside.facts, "final", path.parent, path
        plans, dataset, found = inside.plans, inside.dataset, {inside.fold: path}
        configuration = facts.configuration
    else:
        at = find_model_folder(path)
        if at is None:
            hint = "name a results folder of nnU-Net v2, such as .../nnUNetTrainer__nnUNetPlans__3d_fullres"
            raise InputError("holds no plans.json and dataset.json", path=path, hint=hint)
        folder, place = at, at / "plans.json"
        plans, dataset = (_read_json(folder / name) for name in ("plans.json", "dataset.json"))
        wanted = [path.name] if path.name.startswith("fold_") and folds is None else folds
        found, kind = find_folds(folder, wanted)
        facts = checkpoint_facts(folder, next(iter(found.values())))
        configuration = facts.configuration or _configuration_of(folder)
    inside_file = place == path
    return described_model(
        plans, dataset, replace(facts, configuration=configuration), folder, found, kind,
        plans_place=place, dataset_place=path if inside_file else folder / "dataset.json",
    )  # fmt: skip


def described_model(
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    facts: CheckpointFacts,
    folder: Path,
    folds: dict[str, Path],
    kind: str = "final",
    *,
    plans_place: Path,
    dataset_place: Path,
) -> NnunetModel:
    """The model that plans and ``dataset.json`` describe.

    Args:
        plans, dataset: their content.
        facts: of a checkpoint; its configuration is one of the plans'.
        folder, folds, kind: see ``NnunetModel``.
        plans_place, dataset_place: where they were read, for errors.

    Raises:
        InputError: something is missing in them, or is not rebuilt here.
    """
    configuration, place = facts.configuration, plans_place
    config = _configuration(plans, configuration, place)
    _refuse(plans, config, configuration, place)
    dims = len(config["patch_size"])
    turn = [2 - int(axis) for axis in plans["transpose_forward"]]  # nnU-Net's axis -> MONAI's
    if dims == 2:
        axes = sorted((0, 1), key=lambda axis: turn[1 + axis])
        slice_axis: int | None = turn[0]
    else:
        axes, slice_axis = sorted(range(3), key=lambda axis: turn[axis]), None
    reader = plans["image_reader_writer"]
    flat = reader == "NaturalImage2DIO" or dataset.get("tensorImageSize") == "2D" or _flat_images(plans)
    spacing: list[float | None] = [float(config["spacing"][axis]) for axis in axes]
    if dims == 2 and not flat:
        assert slice_axis is not None
        spacing.insert(slice_axis, None)
    labels, values, order, ignore = _labels(dataset, dataset_place)
    mirror = facts.mirror_axes
    resampling = [config.get(f"resampling_fn_{what}_kwargs") or {} for what in ("data", "probabilities")]
    return NnunetModel(
        folder=folder,
        name=str(plans.get("dataset_name", "")),
        configuration=configuration,
        trainer=facts.trainer,
        plans=str(plans.get("plans_name", "")),
        folds=folds,
        checkpoint_kind=kind,
        dims=dims,
        image_dims=2 if flat else 3,
        channels=_channels(dataset, dataset_place),
        labels=labels,
        label_values=values,
        regions_order=order,
        ignore=ignore,
        normalization=_normalization(plans, config, place),
        spacing=spacing,
        patch=[int(config["patch_size"][axis]) for axis in axes],
        slice_axis=None if flat else slice_axis,
        axes=axes,
        order=int(resampling[0].get("order", 3)),
        order_z=int(resampling[0].get("order_z", 0)),
        inverse=(int(resampling[1].get("order", 1)), int(resampling[1].get("order_z", 0))),
        separate=resampling[0].get("force_separate_z"),
        orientation=READERS[reader],
        mirror_axes=None if mirror is None else sorted(axes.index(axis) for axis in mirror),
        architecture=read_architecture(config, dims, place),
        file_ending=str(dataset.get("file_ending", ".nii.gz")),
        own_dice=_own_dice(folds),
    )


def _read_json(path: Path) -> dict[str, Any]:
    content = read_json(path, hint="copy it again from the results")
    if not isinstance(content, dict):
        raise InputError("is no JSON object", path=path, hint="copy it again from the results")
    return content


def _configuration_of(folder: Path) -> str:
    """By the folder's name, ``trainer__plans__configuration``."""
    parts = folder.name.split("__")
    if len(parts) < 3:
        raise InputError(
            "neither the checkpoint nor the folder's name tells the configuration",
            path=folder,
            hint="give the folder nnU-Net's name, trainer__plans__configuration",
        )
    return parts[2]


def _configuration(plans: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """One configuration with what it inherits."""
    all_of_them = plans.get("configurations")
    if not isinstance(all_of_them, Mapping) or name not in all_of_them:
        known = ", ".join(all_of_them) if isinstance(all_of_them, Mapping) else "none"
        raise InputError(f"has no configuration {name!r}", path=path, hint=f"it has {known}")
    seen, config, current = [name], dict(all_of_them[name]), name
    while "inherits_from" in all_of_them[current]:
        current = all_of_them[current]["inherits_from"]
        if current in seen or current not in all_of_them:
            raise InputError(
                f"configuration {name!r} inherits from {current!r} in a circle, or from none",
                path=path,
                hint="name a configuration that stands in the file",
            )
        seen.append(current)
        config = {**all_of_them[current], **config}
    return config


def _refuse(plans: Mapping[str, Any], config: Mapping[str, Any], name: str, path: Path) -> None:
    """What is not rebuilt, by its name."""
    needed = ("patch_size", "spacing", "normalization_schemes", "use_mask_for_norm")
    missing = next((key for key in needed if key not in config), None)
    if missing is None and "transpose_forward" not in plans:
        missing = "transpose_forward"
    if missing:
        raise InputError(f"has no {missing!r} for {name}", path=path, hint="these are plans of nnU-Net v2 only")
    if config.get("previous_stage"):
        raise InputError(
            f"{name} is the second stage of a cascade: it needs the segmentation of {config['previous_stage']}",
            path=path,
            hint="take the 3d_fullres or 3d_lowres model of the same data set",
        )
    usual = {
        "preprocessor_name": "DefaultPreprocessor",
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    }
    for key, value in usual.items():
        if config.get(key, value) != value:
            raise InputError(
                f"{name} uses {key} {config[key]}, which is not rebuilt here ({value} is)",
                path=path,
                hint="predict with nnU-Net itself, or take another configuration",
            )
    if plans.get("label_manager", "LabelManager") != "LabelManager":
        raise InputError(
            f"uses the label manager {plans['label_manager']}, which is not rebuilt here",
            path=path,
            hint="train without it, or predict with nnU-Net itself",
        )
    reader = plans.get("image_reader_writer", "SimpleITKIO")
    if reader not in READERS:
        hint = f"those of {', '.join(READERS)} are"
        raise InputError(f"images were read by {reader}, which is not rebuilt here", path=path, hint=hint)


def _flat_images(plans: Mapping[str, Any]) -> bool:
    """nnU-Net gives 2D images one slice of a huge thickness."""
    shape = plans.get("original_median_shape_after_transp")
    return isinstance(shape, Sequence) and len(shape) == 3 and int(shape[0]) == 1


def _channels(dataset: Mapping[str, Any], path: Path) -> list[str]:
    named = dataset.get("channel_names") or dataset.get("modality")
    if not isinstance(named, Mapping) or not named:
        raise InputError("names no channels", path=path, hint="add channel_names, such as {'0': 'CT'}")
    return [str(named[key]) for key in sorted(named, key=int)]


def _labels(dataset: Mapping[str, Any], path: Path) -> tuple[list[str], list[list[int]], list[int], int | None]:
    """Names and values of the outputs, the order of regions, and the ignore label."""
    given = dataset.get("labels")
    if not isinstance(given, Mapping) or "background" not in given:
        raise InputError("declares no labels with a background", path=path, hint="these are data sets of nnU-Net v2")
    ignore = given.get("ignore")
    values = {
        str(name): [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
        for name, value in given.items()
        if name != "ignore"
    }
    if not any(len(value) > 1 for value in values.values()):
        names = sorted(values, key=lambda name: values[name][0])
        return names, [values[name] for name in names], [], None if ignore is None else int(ignore)
    regions = {name: value for name, value in values.items() if set(value) != {0}}
    order = dataset.get("regions_class_order")
    if not isinstance(order, Sequence) or len(order) != len(regions):
        raise InputError(
            "has regions, and no regions_class_order for them",
            path=path,
            hint="copy regions_class_order from the training's dataset.json",
        )
    return list(regions), list(regions.values()), [int(v) for v in order], None if ignore is None else int(ignore)


def _normalization(plans: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> list[ChannelNormalization]:
    told = plans.get("foreground_intensity_properties_per_channel")
    told = told or plans.get("foreground_intensity_properties_by_modality") or {}
    found = []
    schemes = zip(config["normalization_schemes"], config["use_mask_for_norm"], strict=True)
    for index, (scheme, masked) in enumerate(schemes):
        if scheme not in SCHEMES:
            hint = f"{', '.join(SCHEMES)} are"
            raise InputError(f"channel {index} has {scheme}, which is not rebuilt here", path=path, hint=hint)
        facts = told.get(str(index)) or {}
        if scheme == "CTNormalization":
            try:
                numbers = [float(facts[key]) for key in ("percentile_00_5", "percentile_99_5", "mean", "std")]
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"has no intensities for channel {index}, which is CT",
                    path=path,
                    hint="copy the plans file that the training wrote",
                ) from error
            found.append(ChannelNormalization(scheme, False, *numbers))
        else:
            found.append(ChannelNormalization(scheme, bool(masked) and scheme == "ZScoreNormalization"))
    return found


def _own_dice(folds: Mapping[str, Path]) -> dict[str, float]:
    """Mean foreground Dice of nnU-Net's validation, where its ``summary.json`` is there."""
    found = {}
    for fold, file in folds.items():
        path = file.parent / "validation" / "summary.json"
        try:
            found[fold] = float(read_json(path)["foreground_mean"]["Dice"])
        except (InputError, ValueError, KeyError, TypeError):
            continue
    return found
