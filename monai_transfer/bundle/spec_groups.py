"""The fields of a ``BundleSpec``, by concern: each group is one dataclass, and the spec inherits them all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from monai_transfer.bundle.kept_pipeline import KeptPipeline
from monai_transfer.config_text import expr

__all__ = ["Augmentation", "Budget", "Data", "Labels", "Preprocessing", "Texts", "Transfer"]


@dataclass(kw_only=True)
class Data:
    """Which cases, and where they are.

    Args:
        dataset_dir, manifest: folder and file, as data or as an ``Expression``.
        source_site, target_site, n_labelled: as in ``DataLists``.
        channel_names: names of the image channels, in order.
        suffix: of the image files, for inference.
        missing_channels: what becomes of cases that lack a channel: ``refuse``, ``leave-out`` or ``zeros``.
        cache_rate, num_workers: of the datasets and loaders.
    """

    channel_names: list[str]
    source_site: Any = None
    target_site: Any = None
    n_labelled: int | None = None
    dataset_dir: str = "."
    manifest: str = expr("os.path.join(@dataset_dir, 'manifest.json')")
    suffix: str = ".nii.gz"
    missing_channels: str = "refuse"
    cache_rate: float = 1.0
    num_workers: int = 0


@dataclass(kw_only=True)
class Labels:
    """What is predicted.

    Args:
        labels: class names by number; empty for regression.
        mapping: what stands in the label files and what the network sees of it, as ``LabelMapping.to_dict`` gives it;
            None: the files hold class numbers.
        partly_annotated: some sites or cases were not looked at for every class.
        surface_tolerance: of the surface Dice by class, else 2; mm, of pictures pixels.
        label_mean, label_std: of a regression's training labels.
        boxes: how boxes are made of probabilities, arguments of ``boxes_from_probabilities``.
        class_weights: of the loss of a classification, or of a present finding; ``None``: equal.
        balanced_draws: training draws each class as often.
        added_classes: classes of the source that the manifest does not name, and that have an output all the same.
        kept_classes: all classes of the source that not every case of the target tells of.
    """

    labels: dict[int, str]
    mapping: dict[str, Any] | None = None
    partly_annotated: bool = False
    surface_tolerance: dict[str, float] = field(default_factory=dict)
    label_mean: float = 0.0
    label_std: float = 1.0
    boxes: dict[str, Any] = field(default_factory=dict)
    class_weights: list[float] | None = None
    balanced_draws: bool = False
    added_classes: list[str] = field(default_factory=list)
    kept_classes: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Preprocessing:
    """From a file to what the network sees.

    Args:
        patch: voxels per axis of a training patch (segmentation) or of the resized image.
        normalise: intensity transforms, as configs.
        spacing: mm per axis to resample to; ``None`` leaves the grid.
        oriented: bring images to RAS first.
        resize: resize whole images to ``patch``.
        crop: cut or pad whole images to ``patch`` about their centre instead: a millimetre stays one (for volumes).
        picture: rasters are read as ``grey`` (one channel) or ``rgb`` (three); ``None``: the images are no rasters.
        deep_grey: grey rasters of 16 bits for a network that takes three channels: each is read as it is, and repeated.
        image_size: pixels per axis that every picture is resized to before patches are cut.
        crops: how patches are placed: ``random``, ``foreground`` (every other one about a voxel of it) or ``classes``
            (about each class as often).
        kept: what the source does to images, in place of ``spacing``, ``oriented``, ``normalise``.
    """

    patch: list[int]
    normalise: list[dict[str, Any]]
    spacing: list[float] | None = None
    oriented: bool = False
    resize: bool = False
    crop: bool = False
    picture: str | None = None
    deep_grey: bool = False
    image_size: list[int] | None = None
    crops: str = "random"
    kept: KeptPipeline | None = None


@dataclass(kw_only=True)
class Augmentation:
    """Random changes of the training images.

    Args:
        flips, rotation_axes: axes of the random flips and rotations.
        swap_sides: training flips from left to right and lets the classes of the two sides change places.
        channel_dropout: the probability with which training leaves out each channel; above 0, cases may lack channels.
        augment, augment_source: presets of ``data.augmentation`` for the target's cases and for the source's.
    """

    flips: list[int] = field(default_factory=lambda: [0])
    rotation_axes: list[str] = field(default_factory=lambda: ["x"])
    swap_sides: bool = False
    channel_dropout: float = 0.0
    augment: str = "light"
    augment_source: str = "light"


@dataclass(kw_only=True)
class Budget:
    """How long and how fast.

    Args:
        epochs, steps_per_epoch, batch_size, val_interval: of fine-tuning and adaptation.
        lr, weight_decay: of fine-tuning.
        pretrain_epochs, pretrain_lr, adapt_lr: of the other workflows.
        warm_up: share of the epochs over which the learning rate rises.
        select, pretrain_select: validation cases choose the epoch; else the last one is kept.
    """

    epochs: int = 20
    steps_per_epoch: int = 10
    batch_size: int = 4
    val_interval: int = 2
    lr: float = 1e-3
    weight_decay: float = 1e-4
    pretrain_epochs: int = 40
    pretrain_lr: float = 2e-3
    adapt_lr: float = 1e-3
    warm_up: float = 0.0
    select: bool = True
    pretrain_select: bool = True


@dataclass(kw_only=True)
class Transfer:
    """What is transferred, and how.

    Args:
        network: its config, with ``_target_``.
        layer: module name whose output adaptation aligns; ``None``: what enters the class head.
        strategy, method, regulariser: configs of what trains, of adaptation's term (``{}``: the task's default) and of
            fine-tuning's own.
        method_weight: factor of the method's term.
        joint: fine-tuning sees source cases in half of every batch.
        start: file in the bundle that fine-tuning starts from. ``models/source.pt`` keeps a source as it came, so that
            each run adapts it anew and reports it.
        weights: file in the bundle that is evaluated where no other is named.
        source_classes: names of that file's classes, where they are known and differ.
        trusted: the decision to run the source's own code, as ``Trust.record`` gives it; empty: none of it runs.
        weights_note: where the weights came from and what fitting did to them.
        loading: further words of ``load_weights`` that its weights need.
        min_coverage: share of the network that they must fill; less for those of an encoder alone.
        folds: of a source of several, their names: their mean (``FoldMean``) is what is evaluated untouched.
        scratch: the spec for the same data without the source, which the arm ``scratch`` trains.
    """

    network: dict[str, Any]
    layer: str | None = None
    strategy: dict[str, Any] = field(default_factory=lambda: {"_target_": "monai_transfer.strategies.full.Full"})
    method: dict[str, Any] = field(default_factory=dict)
    method_weight: float = 1.0
    regulariser: dict[str, Any] | None = None
    joint: bool = False
    start: str = "models/model.pt"
    weights: str = "models/model.pt"
    source_classes: list[str] | None = None
    trusted: dict[str, str] = field(default_factory=dict)
    weights_note: dict[str, Any] = field(default_factory=dict)
    loading: dict[str, Any] = field(default_factory=dict)
    min_coverage: float = 0.5
    folds: list[str] = field(default_factory=list)
    scratch: Any = None


@dataclass(kw_only=True)
class Texts:
    """What people read.

    Args:
        modality, description, data_note, data_source: words.
        expect: per workflow, the score to expect.
        recipe: planned values with their reasons, ``{name: {"value": ..., "reason": ...}}``.
        data_statistics: what the data are like, for ``metadata.json``.
    """

    modality: str = ""
    description: str = ""
    data_note: str = "a manifest (see data_manifests/schema.json)"
    data_source: str = ""
    expect: dict[str, str] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    data_statistics: dict[str, Any] = field(default_factory=dict)
