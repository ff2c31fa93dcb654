"""``BundleSpec``: everything in which one bundle differs from another; ``configs`` builds everything else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from monai_transfer.bundle.command_line import WORKFLOWS
from monai_transfer.bundle.kept_pipeline import KeptPipeline
from monai_transfer.config_text import expr
from monai_transfer.errors import InputError
from monai_transfer.manifest.label_mapping import LabelMapping
from monai_transfer.networks.output_forms import may_give_several
from monai_transfer.tasks import Outputs, Task, get_task

__all__ = ["WORKFLOWS", "BundleSpec"]

# a low threshold: a FROC curve needs candidates, and their scores say which of them to believe
_BOXES: dict[str, Any] = {"threshold": 0.1, "min_size": 0.0, "score": "mean", "connectivity": None}
_EXPECT = ("train", "pretrain", "adapt", "evaluate", "inference")


@dataclass
class BundleSpec:
    """One bundle's differences.

    Attributes:
        name: folder name; holds the task's word.
        task: ``segmentation``, ``classification``, ``regression`` or ``localization``: a segmentation of the lesions
            whose connected components give boxes; or ``self_supervised``: pretraining without labels.
        spatial_dims: 2 or 3.
        labels: class names by number; empty for regression.
        channel_names: names of the image channels, in order.
        network: its config, with ``_target_``.
        layer: module name whose output adaptation aligns; ``None``: what enters the class head.
        patch: voxels per axis of a training patch (segmentation) or of the resized image.
        spacing: mm per axis to resample to; ``None`` leaves the grid.
        oriented: bring images to RAS first.
        resize: resize whole images to ``patch``.
        crop: cut or pad whole images to ``patch`` about their centre instead: a millimetre stays one (for volumes).
        picture: rasters are read as ``grey`` (one channel) or ``rgb`` (three); ``None``: the images are no rasters.
        normalise: intensity transforms, as configs.
        flips, rotation_axes: axes of the random flips and rotations.
        crops: how patches are placed: ``random``, ``foreground`` (every other one about a voxel of it) or ``classes``
            (about each class as often).
        image_size: pixels per axis that every picture is resized to before patches are cut.
        class_weights: of the loss of a classification; ``None``: equal.
        warm_up: share of the epochs over which the learning rate rises.
        select, pretrain_select: validation cases choose the epoch; else the last one is kept.
        recipe: planned values with their reasons, ``{name: {"value": ..., "reason": ...}}``.
        augment, augment_source: presets of ``data.augmentation`` for the target's cases and for the source's.
        joint: fine-tuning sees source cases in half of every batch.
        dataset_dir, manifest: folder and file, as data or as an ``Expression``.
        source_site, target_site, n_labelled: as in ``DataLists``.
        strategy, method, regulariser: configs of what trains, of adaptation's term and of fine-tuning's own.
        boxes: how boxes are made of probabilities, arguments of ``boxes_from_probabilities``.
        mapping: what stands in the label files and what the network sees of it, as ``LabelMapping.to_dict`` gives it;
            None: the files hold class numbers.
        partly_annotated: some sites or cases were not looked at for every class.
        surface_tolerance: of the surface Dice, mm by class; 2 mm for the others.
        label_mean, label_std: of a regression's training labels.
        suffix: of the image files, for inference.
        modality, description, data_note: words for people.
        expect: per workflow, the score to expect.
        start: file in the bundle that fine-tuning starts from. ``models/source.pt`` keeps a source as it came, so that
            each run adapts it anew and reports it.
        weights: file in the bundle that is evaluated where no other is named.
        source_classes: names of that file's classes, where they are known and differ.
        weights_note: where the weights came from and what fitting did to them.
        kept: what the source does to images, in place of ``spacing``, ``oriented``, ``normalise``.
    """

    name: str
    task: str
    spatial_dims: int
    labels: dict[int, str]
    channel_names: list[str]
    network: dict[str, Any]
    patch: list[int]
    normalise: list[dict[str, Any]]
    source_site: Any = None
    target_site: Any = None
    layer: str | None = None
    spacing: list[float] | None = None
    oriented: bool = False
    resize: bool = False
    crop: bool = False
    picture: str | None = None
    flips: list[int] = field(default_factory=lambda: [0])
    rotation_axes: list[str] = field(default_factory=lambda: ["x"])
    crops: str = "random"
    image_size: list[int] | None = None
    class_weights: list[float] | None = None
    warm_up: float = 0.0
    select: bool = True
    pretrain_select: bool = True
    recipe: dict[str, Any] = field(default_factory=dict)
    augment: str = "light"
    augment_source: str = "light"
    joint: bool = False
    dataset_dir: str = "."
    manifest: str = expr("os.path.join(@dataset_dir, 'manifest.json')")
    n_labelled: int | None = None
    epochs: int = 20
    steps_per_epoch: int = 10
    batch_size: int = 4
    val_interval: int = 2
    lr: float = 1e-3
    weight_decay: float = 1e-4
    pretrain_epochs: int = 40
    pretrain_lr: float = 2e-3
    adapt_lr: float = 1e-3
    strategy: dict[str, Any] = field(default_factory=lambda: {"_target_": "monai_transfer.strategies.full.Full"})
    method: dict[str, Any] = field(default_factory=lambda: {"_target_": "monai_transfer.methods.dann.Dann"})
    method_weight: float = 1.0
    regulariser: dict[str, Any] | None = None
    cache_rate: float = 1.0
    num_workers: int = 0
    mapping: dict[str, Any] | None = None
    partly_annotated: bool = False
    surface_tolerance: dict[str, float] = field(default_factory=dict)
    label_mean: float = 0.0
    label_std: float = 1.0
    boxes: dict[str, Any] = field(default_factory=dict)
    suffix: str = ".nii.gz"
    modality: str = ""
    description: str = ""
    data_note: str = "a manifest (see data_manifests/schema.json)"
    data_source: str = ""
    expect: dict[str, str] = field(default_factory=dict)
    data_statistics: dict[str, Any] = field(default_factory=dict)
    start: str = "models/model.pt"
    weights: str = "models/model.pt"
    source_classes: list[str] | None = None
    weights_note: dict[str, Any] = field(default_factory=dict)
    kept: KeptPipeline | None = None

    def __post_init__(self) -> None:
        get_task(self.task)
        if not self.label_std > 0:
            raise InputError("the training labels do not vary", hint="a quantity to learn needs at least two values")
        self.boxes = _BOXES | self.boxes
        self.labels = {int(key): str(value) for key, value in self.labels.items()}
        for key in _EXPECT:
            self.expect.setdefault(key, "not measured for this data; see the run folder's summary.json")

    @property
    def kind(self) -> Task:
        """The task's description."""
        return get_task(self.task)

    @property
    def dense(self) -> bool:
        """Whether the network says something about every voxel."""
        return self.kind.dense

    @property
    def outputs(self) -> Outputs:
        """What the network's outputs stand for."""
        if self.mapping is None:
            return Outputs(self.class_names, self.label_mean, self.label_std)
        mapping = LabelMapping.from_dict(self.mapping)
        values = None if mapping.multi_label else mapping.written_values
        plain = values is None or values == list(range(len(values)))
        gaps = bool(mapping.ignore) or self.partly_annotated
        written = None if plain else values
        return Outputs(self.class_names, self.label_mean, self.label_std, gaps, written, mapping.values_of_regions())

    @property
    def out_channels(self) -> int:
        """Outputs of the network."""
        return len(self.class_names)

    @property
    def class_names(self) -> list[str]:
        """Names of the outputs, in order."""
        return [self.labels[key] for key in sorted(self.labels)] or ["value"]

    @property
    def lesions(self) -> list[str]:
        """Names of the classes that get boxes: all but the background."""
        return self.class_names[1:]

    @property
    def primary_metric(self) -> str:
        """What arms are compared by."""
        return self.kind.primary_metric

    @property
    def higher_is_better(self) -> bool:
        """Direction of the primary metric."""
        return self.kind.higher_is_better

    @property
    def key_metric(self) -> str:
        """What selects the best epoch."""
        return self.kind.key_metric

    @property
    def loss(self) -> dict[str, Any]:
        """The supervised loss, as a config."""
        loss = self.kind.loss(self.outputs)
        arguments = {key: value for key, value in self.network.items() if key != "_target_"}
        if not may_give_several(self.network["_target_"], arguments):
            return loss
        return {"_target_": "monai_transfer.networks.deep_supervision.HeadsLoss", "loss": loss}
