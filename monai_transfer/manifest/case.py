"""One case of a manifest: its image, its label, and who and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Case"]


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        image: absolute path of the image file (or DICOM series folder), or a list of them, one per channel.
        label: absolute path (segmentation, localization), class number or ``{finding: 1, 0 or None}``
            (classification), float (regression), or ``None`` where there is no label.
        case: name, unique in the manifest and safe as a file name.
        patient: pseudonym; no patient stands in two splits.
        site: hospital or scanner.
        acquired: days since the first image, or an order.
        sha256: of the image file; a list where ``image`` is one.
        sha256_label: of the label file.
        fold: cross-validation fold.
        annotated: the classes that were looked for in this case; ``None``: those of its site.
        missing: numbers of the channels that this case lacks; another of its files stands in their place.
        label_name: the class by name, where the file writes it so; kept for writing it back.

    >>> from monai_transfer.manifest.case import Case
    >>> case = Case(image="a.nii.gz", label="a_mask.nii.gz", case="a", patient="p1", site="us")
    >>> case.images, case.site
    (['a.nii.gz'], 'us')
    """

    image: str | list[str]
    case: str
    patient: str
    site: str
    label: str | int | float | dict[str, int | None] | None = None
    acquired: float | None = None
    sha256: str | list[str] | None = None
    sha256_label: str | None = None
    fold: int | None = None
    annotated: list[str] | None = None
    missing: list[int] = field(default_factory=list)
    label_name: str | None = None

    @property
    def images(self) -> list[str]:
        """The image paths as a list, of one or more."""
        return [self.image] if isinstance(self.image, str) else list(self.image)
