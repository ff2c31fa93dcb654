"""What is asked of one case and what is found in it, as data that also crosses to worker processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from monai_transfer.inspection.finding import Finding
from monai_transfer.manifest.case import Case

__all__ = ["CaseJob", "CaseReport", "ImageFacts", "Inspected"]


@dataclass(frozen=True)
class CaseJob:
    """The files of one case that are to be inspected.

    Attributes:
        images: paths, one a channel file.
        sha256: hashes that the images should have, as many as images, ``None`` where unknown; empty: none is known.
        label: path of the mask, or of a file of annotations; ``None``: there is no such file.
        sha256_label: hash that the label should have.
        classes: declared class names by the number in the mask; empty accepts any whole number.
        max_memory: bytes that reading one file may take; ``None``: the reader's own limit.

    Example:
        >>> CaseJob.from_dict(CaseJob(["a.nii.gz"], classes={1: "liver"}).to_dict()).classes
        {1: 'liver'}
    """

    images: list[str]
    sha256: list[str | None] = field(default_factory=list)
    label: str | None = None
    sha256_label: str | None = None
    classes: dict[int, str] = field(default_factory=dict)
    max_memory: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CaseJob:
        """From ``to_dict``, after JSON has made strings of the class numbers."""
        return cls(**{**data, "classes": {int(number): name for number, name in data["classes"].items()}})


@dataclass(frozen=True)
class ImageFacts:
    """One image file in numbers.

    Attributes:
        path: the file.
        content: SHA-256 of shape, type and voxels: equal for the same voxels, however they are stored.
        shape: voxels along each spatial axis, in the order of the array.
        channels: number of channels.
        spacing: mm along each axis of ``shape``; ``None`` where the file has no geometry.
        orientation: axis codes such as ``RAS``; ``None`` where the file has no geometry.
        modality: as the file tells it (DICOM), such as ``MR``.
        quantiles: intensities at the percentiles ``inspection.case.QUANTILES``, in the file's units (HU of CT).
        zeros: share of the voxels that are exactly zero, 0 to 1.
        mean, std: of the intensities, in the file's units.
    """

    path: str
    content: str
    shape: list[int]
    channels: int
    spacing: list[float] | None
    orientation: str | None
    modality: str | None
    quantiles: list[float]
    zeros: float
    mean: float
    std: float


@dataclass(frozen=True)
class CaseReport:
    """What ``inspect_case`` found.

    Attributes:
        findings: faults of the files; ``case`` and ``split`` are not filled in.
        images: facts of each image that could be read.
        label_values: number of voxels by value of the mask (whole values alone); empty without a readable mask.

    Example:
        >>> CaseReport.from_dict({"findings": [], "images": [], "label_values": {"1": 20}}).label_values
        {1: 20}
    """

    findings: list[Finding] = field(default_factory=list)
    images: list[ImageFacts] = field(default_factory=list)
    label_values: dict[int, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CaseReport:
        """From ``to_dict``, after JSON has made strings of the mask's values."""
        return cls(
            [Finding(**finding) for finding in data["findings"]],
            [ImageFacts(**facts) for facts in data["images"]],
            {int(value): n for value, n in data["label_values"].items()},
        )


Inspected = list[tuple[str, Case, CaseReport]]
"""Split, case and what ``inspect_case`` found of it."""
