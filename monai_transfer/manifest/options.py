"""What building a manifest may be told, by concern; each step is given its own part. ``BuildOptions`` is all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    *("BuildOptions", "LabelOptions", "LayoutOptions", "Names", "PatientOptions"),
    *("Progress", "SplitOptions", "TableOptions", "TextOptions"),
]

Names = Sequence[str] | Mapping[Any, str]
"""Class names as the user gives them: in order, or by what was found (a value, a class folder, a structure)."""

Progress = Callable[[Iterable, str], Iterable]
"""Wraps a list to show how far its work is: ``progress(items, "Computing checksums")`` yields the items."""


@dataclass(frozen=True, kw_only=True)
class LayoutOptions:
    """How the folder is read.

    Args:
        layout: ``auto``, the name of a module in ``monai_transfer/manifest/layouts``, or ``folders``.
        exclude: patterns of file names (``*_4d*``) whose images are left out.
        channels: BIDS suffixes, or last words of file names, that make up the image.
        mask_suffix: what a mask's name has behind its image's: ``_tumour`` of ``a_tumour.nii.gz`` for ``a.nii.gz``.
        mask_ending: the ending of masks where image and mask share a name: ``.png`` of ``a.png`` for ``a.jpg``.
        site_from: DICOM header keywords, or keys of the JSON files beside BIDS images, that make up the site.
        series_description: text that the chosen DICOM series' description holds.
        path_column: the column of a table in the folder that names image files, where its name is unusual.
        overlaps: where structures overlap: ``order`` (one lies on top) or ``regions`` (each is an output).
        nested: whether a contour inside another of its structure is a ``hole`` or is filled (``fill``).
        missing_channels: ``refuse`` a set in which some cases lack a channel, ``leave-out`` those cases, or ``zeros``:
            keep them, the channel declared missing.
    """

    layout: str = "auto"
    exclude: Sequence[str] = ()
    channels: Sequence[str] = ()
    mask_suffix: str | None = None
    mask_ending: str | None = None
    site_from: Sequence[str] = ()
    series_description: str | None = None
    path_column: str | None = None
    nested: str = "hole"
    overlaps: str = "order"
    missing_channels: str = "refuse"


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """A table (CSV or TSV) that joins patient, site, label, split and order by case, and its unusual column names."""

    table: str | Path | None = None
    case_column: str | None = None
    patient_column: str | None = None
    site_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """What the labels mean.

    Args:
        task: where the labels do not show it.
        labels: class names, in order or by what was found: ``{"No_findings": "normal"}``, ``{0: "background"}``; values
            of masks that share a name are one class.
        label_regex: its first group, in the path below the folder, is the class of images without another label.
        binarize: write masks of everything that is not 0, and list these.
        regions: outputs that may overlap, as mask values: ``{"whole": [1, 2, 4]}``.
        ignore: mask values that are neither learned from nor scored.
        annotated: by site the classes that were looked for.
        findings: columns of a table that are findings, with 1, 0, -1 (uncertain) and empty cells.
        uncertain: what -1 in a finding's column means: ``ignore`` (unknown), ``positive`` or ``negative``.
        unmentioned: what an empty cell of a finding's column means: ``ignore`` (unknown) or ``negative``.

    >>> LabelOptions(labels={0: "background", 1: "tumour", 4: "tumour"}, ignore=[255]).labels[4]  # as 1
    'tumour'
    """

    task: str | None = None
    labels: Names | None = None
    label_regex: str | None = None
    binarize: bool = False
    regions: Mapping[str, Sequence[int]] | None = None
    ignore: Sequence[int] = ()
    annotated: Mapping[str, Sequence[str]] = field(default_factory=dict)
    findings: Sequence[str] = ()
    uncertain: str = "ignore"
    unmentioned: str = "ignore"


@dataclass(frozen=True, kw_only=True)
class PatientOptions:
    """Who and where: the site of all cases (or one per folder), and a regular expression for the patient."""

    site: str | Sequence[str] | None = None
    patient_regex: str | None = None


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """Shares of training, validation and test; or a number of cross-validation folds; and the seed of both.

    >>> SplitOptions(folds=5).fractions
    (0.6, 0.15, 0.25)
    """

    fractions: Sequence[float] = (0.6, 0.15, 0.25)
    folds: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """Texts of the manifest; by default what the layout tells."""

    name: str | None = None
    modality: str | None = None
    licence: str | None = None
    reference: str | None = None
    description: str | None = None


@dataclass(frozen=True, kw_only=True)
class BuildOptions(LayoutOptions, TableOptions, LabelOptions, PatientOptions, SplitOptions, TextOptions):
    """Everything that :func:`~monai_transfer.manifest.build.build_manifest` may be told; see the parts.

    Args:
        checksums: write the SHA-256 of every file.
        progress: shows how far long work is.
        say: is told what each folder was taken for, before anything is written.

    >>> options = BuildOptions(site="north", labels=["background", "tumour"], fractions=(0.7, 0.1, 0.2))
    >>> options.site, options.seed, options.checksums
    ('north', 0, True)
    """

    checksums: bool = True
    progress: Progress = lambda items, text: items
    say: Callable[[str], None] = lambda text: None
