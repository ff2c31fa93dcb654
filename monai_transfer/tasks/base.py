"""``Task``: what is predicted and how, described once. Every other file asks a task; none asks for its name.

A new task is one file beside this one with one ``Task``, its test, and its entry in ``monai_transfer.tasks``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monai_transfer.metrics.base import Metric, find_metric
from monai_transfer.metrics.training import TrainingScore
from monai_transfer.tasks.cases import CaseInput, CaseResult
from monai_transfer.tasks.labels import LabelKind

__all__ = ["Config", "Outputs", "Task"]

Config = dict[str, Any]
"""One object of a MONAI config: ``_target_`` and its arguments."""


@dataclass(frozen=True)
class Outputs:
    """What a network's outputs stand for.

    Args:
        names: of the classes or quantities, in the order of the output channels.
        mean, std: of a quantity's training labels; the network learns ``(label - mean) / std``. A bundle's configs hold
            them once, as ``label_scale``.
        gaps: labels may hold -1, for what is ignored or was not looked for.
        written: the value in the files of each class, where it is not its number.
        combinations: of regions, the value in the files of each set of them: that of regions 0 and 2 stands at 1 + 4.

    >>> len(Outputs(["background", "lesion"]))
    2
    """

    names: Sequence[str]
    mean: float = 0.0
    std: float = 1.0
    gaps: bool = False
    written: Sequence[int] | None = None
    combinations: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.names)


def _nothing(outputs: Outputs) -> list[Config]:
    return []


@dataclass(frozen=True)
class Task:
    """One kind of prediction.

    Args:
        name: as it stands in manifests, bundles and run folders.
        description: what is predicted, a clause for people.
        label: what stands as a case's label.
        dense: the network has an output for every voxel: it trains on patches and predicts in sliding windows.
        activation: ``softmax`` (classes exclude each other), ``sigmoid`` (they do not) or None (quantities): what turns
            the network's outputs into what is scored.
        metrics: what its test cases are judged by, by name.
        primary_metric: the one of them that arms are compared by.
        example_metric: the one of them that ranks single cases, for the best and the worst example.
        channels: labels come as one channel for each output, 1, 0 or -1 where nobody can tell.
        class_metric: the one of them that tells of a single class whether it is known; None: none does.
        case: from one test case to its row of ``cases.csv``.
        known: whether a row has a truth to be judged by.
        training_score: what is logged of the training batches; None: nothing.
        key_metric: name of what selects the best epoch.
        key_metric_config: the ignite metric of that name, over ``pred`` and ``label``, as a config.
        loss: config of the supervised loss.
        needs_names: a manifest must name the classes.
        class_zero: ``background`` (class 0 is not scored), ``class`` (numbers run from 0 without a gap) or None (there
            are no classes).
        default_names: classes of a manifest that names none.
        label_transforms: of the training label, behind loading; transforms as configs, on the key ``label``.
        validation: transforms of ``pred`` and ``label`` to what the key metric reads.
        scored: transforms of ``pred``, on the image's own grid, to what ``CaseRecorder`` reads.
        predicted: transforms of ``pred``, on the image's own grid, to what inference gives; MONAI alone.
        saved_as: what inference writes: ``mask``, ``boxes``, ``table`` (a row for each image) or ``features``.
        output_type, output_format: of ``network_data_format`` in a bundle's metadata; format None: the image's.
        seen_in: whether a training batch's logits and labels look like this task; None: it cannot be told from them.
        trained_as: a task whose methods do for this one as well; None: none but those that name this one.
        in_manifest: the ``task`` of a manifest may be this one.
        form_of, applies: a manifest of the task ``form_of`` for which ``applies(manifest)`` is true is of this one.

    >>> from monai_transfer.tasks import get_task
    >>> get_task("localization").trained_as, get_task("localization").label.is_path
    ('segmentation', True)
    """

    name: str
    description: str
    label: LabelKind
    dense: bool
    activation: str | None
    metrics: Mapping[str, Metric]
    primary_metric: str
    example_metric: str
    case: Callable[[CaseInput], CaseResult]
    known: Callable[[Mapping[str, Any]], bool]
    training_score: TrainingScore | None
    key_metric: str
    key_metric_config: Callable[[Outputs], Config]
    loss: Callable[[Outputs], Config]
    validation: Callable[[Outputs], list[Config]]
    scored: Callable[[Outputs], list[Config]]
    predicted: Callable[[Outputs], list[Config]]
    saved_as: str
    output_type: str
    output_format: str | None
    needs_names: bool = False
    class_zero: str | None = None
    default_names: Mapping[int, str] = field(default_factory=dict)
    label_transforms: Callable[[Outputs], list[Config]] = _nothing
    seen_in: Callable[[Any, Any], bool] | None = None
    channels: bool = False
    class_metric: str | None = None
    trained_as: str | None = None
    in_manifest: bool = True
    form_of: str | None = None
    applies: Callable[[Any], bool] = lambda manifest: False

    @property
    def as_method_sees_it(self) -> str:
        """The task that a method's ``tasks`` names, where it does not name this one."""
        return self.trained_as or self.name

    def fits(self, tasks: Sequence[str]) -> bool:
        """Whether a method that names these tasks is for this one.

        >>> from monai_transfer.tasks import get_task
        >>> regions = get_task("regions")
        >>> regions.fits(["regression"]), regions.fits(["regions"]), regions.fits(["segmentation"])
        (True, True, False)
        """
        return self.name in tasks or self.as_method_sees_it in tasks

    @property
    def judged(self) -> bool:
        """Whether test cases are judged against a label."""
        return self.label.name != "none"

    @property
    def exclusive(self) -> bool:
        """Whether outputs are classes of which each case or voxel has exactly one."""
        return self.activation == "softmax"

    @property
    def independent(self) -> bool:
        """Whether outputs are classes that do not exclude each other: each is present or absent."""
        return self.activation == "sigmoid"

    @property
    def has_classes(self) -> bool:
        """Whether outputs are classes, which have probabilities."""
        return self.activation is not None

    @property
    def classes_of_cases(self) -> bool:
        """Whether a case, not a voxel, has classes, by which cases can be counted and balanced."""
        return self.has_classes and not self.dense

    @property
    def higher_is_better(self) -> bool:
        """Direction of the primary and the key metric."""
        return self.metric(self.primary_metric).better > 0

    def metric(self, name: str, unit_of_length: str = "mm") -> Metric:
        """The metric of a column of ``cases.csv``, such as ``dice_liver``; see ``metrics.find_metric``."""
        return find_metric(self.metrics, name).in_unit_of_length(unit_of_length)

    def masked_classes(self, labels: Mapping[Any, str]) -> dict[str, str]:
        """The values that a label map may hold, by number as text; empty where any value may stand there."""
        return {str(key): str(name) for key, name in labels.items()} if self.label.is_path and self.needs_names else {}

    def output_names(self, labels: Mapping[Any, str]) -> dict[int, str]:
        """The classes by number, from a manifest's ``labels``; empty where there are no classes."""
        if not self.has_classes:
            return {}
        named = {int(key): str(name) for key, name in labels.items()}
        if self.class_zero == "background" and self.default_names:
            return {0: self.default_names[0]} | (named or dict(self.default_names))
        return named
