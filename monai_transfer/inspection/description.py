"""What a set is in numbers, and what a bundle says of its training data: the two sides of ``check --source``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["DataDescription", "SourceDescription"]


@dataclass(frozen=True)
class DataDescription:
    """A set of images in numbers, without identifiers; what bundles store as ``data_statistics``.

    Attributes:
        task: of the manifest.
        modality: as the manifest or else most files tell it; ``None``: unknown.
        dims: 2 or 3.
        channels: channels per case.
        channel_names: in their order; may be empty.
        labels: class names in the order of their numbers.
        n_images, n_patients: how many were described.
        shape: median voxels per axis. Axes are in RAS order here and below where a geometry is known.
        spacing: median mm per axis; ``None`` where no file has a geometry.
        spacing_range: smallest and largest mm per axis, one pair an axis.
        field_of_view: median extent per axis, mm.
        orientation: the commonest axis codes of the files, such as ``LPS``.
        intensity: medians over the images of the percentiles ``p0.5 ... p99.5``, of ``mean`` and of ``std``, in the
            files' units (HU of CT).
        prevalence: by class the share of the labelled cases that have it, 0 to 1; for a number to be predicted its
            ``mean, std, p5, p95`` in that number's units; ``None`` without labels.
        size: of masks, by class the median share of the voxels in cases that have it, 0 to 1; else ``None``.
    """

    task: str
    modality: str | None
    dims: int
    channels: int
    channel_names: list[str]
    labels: list[str]
    n_images: int
    n_patients: int
    shape: list[int]
    spacing: list[float] | None
    spacing_range: list[list[float]] | None
    field_of_view: list[float] | None
    orientation: str | None
    intensity: dict[str, float]
    prevalence: dict[str, float] | None = None
    size: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As bundles store it in their metadata: ``prevalence`` and ``size`` only where they are known."""
        unknown = [key for key in ("prevalence", "size") if getattr(self, key) is None]
        return {key: value for key, value in asdict(self).items() if key not in unknown}


@dataclass(frozen=True)
class SourceDescription:
    """What a bundle tells of its model and of the data it was trained on; ``None`` or empty where it is silent.

    Attributes:
        task: such as ``segmentation``.
        modality: such as ``MR``.
        dims: 2 or 3.
        channels: input channels of the model.
        channel_names: their names in the model's order.
        labels: class names in the order of their numbers.
        patch: voxels per axis of the model's input.
        spacing: mm per axis that its preprocessing resamples to; -1 leaves an axis as it is.
        orientation: axis codes that its preprocessing turns images to.
        window: lowest and highest intensity that its preprocessing scales from.
        statistics: the metadata's own ``data_statistics`` (keys of ``DataDescription``), not validated.
    """

    task: str | None
    modality: str | None
    dims: int | None
    channels: int | None
    channel_names: list[str]
    labels: list[str]
    patch: list[int]
    spacing: list[float] | None
    orientation: str | None
    window: list[float] | None
    statistics: dict[str, Any] = field(default_factory=dict)
