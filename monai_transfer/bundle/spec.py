"""``BundleSpec``: everything in which one bundle differs from another; ``configs`` builds everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monai_transfer.bundle.command_line import WORKFLOWS
from monai_transfer.bundle.components import component, default_method
from monai_transfer.bundle.spec_groups import Augmentation, Budget, Data, Labels, Preprocessing, Texts, Transfer
from monai_transfer.errors import InputError
from monai_transfer.manifest.label_mapping import LabelMapping
from monai_transfer.networks.output_forms import may_give_several
from monai_transfer.tasks import Outputs, Task, get_task

__all__ = ["WORKFLOWS", "BundleSpec"]

# a low threshold: a FROC curve needs candidates, and their scores say which of them to believe
_BOXES: dict[str, Any] = {"threshold": 0.1, "min_size": 0.0, "score": "mean", "connectivity": None}
_EXPECT = ("train", "pretrain", "adapt", "evaluate", "scratch", "inference")


@dataclass(kw_only=True)
class BundleSpec(Data, Labels, Preprocessing, Augmentation, Budget, Transfer, Texts):
    """One bundle's differences: the groups above, and what it is.

    Attributes:
        name: folder name; holds the task's word.
        task: ``segmentation``, ``classification``, ``regression`` or ``localization``: a segmentation of the lesions
            whose connected components give boxes; or ``self_supervised``: pretraining without labels.
        spatial_dims: 2 or 3.

    >>> more = {"network": {"_target_": "monai.networks.nets.DenseNet121"}, "patch": [64, 64], "normalise": []}
    >>> spec = BundleSpec(
    ...     name="x", task="classification", spatial_dims=2, labels={0: "well", 1: "ill"}, channel_names=["US"], **more
    ... )
    >>> spec.primary_metric, spec.out_channels, spec.epochs
    ('auc', 2, 20)
    """

    name: str
    task: str
    spatial_dims: int

    def __post_init__(self) -> None:
        task = get_task(self.task)
        if not self.method:
            self.method = component("methods", default_method(task, len(self.labels))[0])
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
        """Whether the network has an output for every voxel."""
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
        # told, not guessed: a label with a channel for each output looks like a volume of class numbers
        target = "monai_transfer.networks.deep_supervision.HeadsLoss"
        return {"_target_": target, "loss": loss, "dims": self.spatial_dims}
