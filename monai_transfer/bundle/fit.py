"""Reading a manifest's images to fit a bundle to them: dimensions, spacing, size, channels, intensities."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from monai_transfer.bundle.planning.intensities import foreground_intensities
from monai_transfer.errors import InputError
from monai_transfer.inspection.case import inspect_case
from monai_transfer.inspection.description import DataDescription
from monai_transfer.inspection.facts import CaseJob, CaseReport, Inspected
from monai_transfer.inspection.suitability import describe_inspected, read_source
from monai_transfer.inspection.values import declared_values
from monai_transfer.manifest import Case, Manifest
from monai_transfer.tasks import get_task

__all__ = ["DataFit", "fit_data"]

_RASTER = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


@dataclass
class DataFit:
    """What the inspected images have in common.

    Attributes:
        spatial_dims: 2 or 3.
        suffix: the commonest file suffix; ``""`` for DICOM folders alone.
        raster: PNG and the like: no geometry in the file.
        channels: channels per image as loaded.
        spacing: median spacing, mm per axis in RAS order; ``None`` for rasters.
        shape: median shape at that orientation.
        low, high, mean, std: medians over the images of their 0.5 and 99.5 percentile, mean and standard deviation.
        background: mean share of voxels that are exactly zero.
        described: by site (``None``: all of them), what ``describe_inspected`` says of its images.
        foregrounds: by channel, of CT with masks: ``p0.5, p99.5, mean, std`` of the voxels inside them; else empty.
    """

    spatial_dims: int
    suffix: str
    raster: bool
    channels: int
    spacing: list[float] | None
    shape: list[int]
    low: float
    high: float
    mean: float
    std: float
    background: float
    described: dict[str | None, DataDescription] = field(default_factory=dict)
    foregrounds: list[dict[str, float]] = field(default_factory=list)

    @property
    def foreground(self) -> dict[str, float]:
        """Of an image with one channel."""
        return self.foregrounds[0] if len(self.foregrounds) == 1 else {}

    @property
    def sizes(self) -> dict[str, float]:
        """By class the median share of an image's voxels where it is present, the least over the sites."""
        found: dict[str, float] = {}
        for one in self.described.values():
            for name, share in (one.size or {}).items():
                found[name] = min(share, found.get(name, share))
        return found

    @property
    def smallest(self) -> float | None:
        """Voxels of the smallest class in the median image; ``None`` where no mask was read."""
        return min(self.sizes.values()) * math.prod(self.shape) if self.sizes else None

    def statistics(self, source: str | Path | None = None) -> dict[str, Any]:
        """As data for the bundle's metadata: of what its weights were trained on first, and ``other_sites`` by name.

        Keys of ``DataDescription``, ``site``, and ``other_sites`` (the same keys by site). No case is named.

        Args:
            source: the bundle or run folder that the weights come from: then its own training data come first, as far
                as it tells; without one, those of the first site, where pretraining begins.
        """
        named = {site: found.to_dict() for site, found in self.described.items() if site is not None}
        if source is not None:
            try:
                told = read_source(source).statistics
            except InputError:  # a bare checkpoint
                told = {}
            first = {key: value for key, value in told.items() if key != "other_sites"}
        elif named:
            site = next(iter(named))
            first = named.pop(site) | {"site": site}
        else:
            first = self.described[None].to_dict() if None in self.described else {}
        return first | ({"other_sites": named} if named else {})


def _suffix(path: str) -> str:
    name = Path(path)
    if name.is_dir():
        return ""
    return "".join(name.suffixes[-2:]) if name.suffix == ".gz" else name.suffix


def _spread(cases: Sequence[Case], n: int) -> list[Case]:
    """``n`` of the cases, evenly spread."""
    return [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, min(n, len(cases))).astype(int))]


def fit_data(manifest: Manifest, sites: Sequence[str | None], n: int = 12) -> DataFit:
    """Read up to ``n`` training images (and labels) of each site and describe them.

    Args:
        manifest: the cases.
        sites: the site whose data training begins with first; ``None`` is all sites.
        n: how many to read of each.

    Raises:
        InputError: no training image, unreadable images, or 2D and 3D images in one manifest.
    """
    inspected: dict[str | None, Inspected] = {}
    for site in dict.fromkeys(sites):
        cases = manifest.cases("training", site=site) + manifest.cases("unlabeled", site=site)
        if cases:
            inspected[site] = [("training", case, _inspect(manifest, case)) for case in _spread(cases, n)]
    if not inspected:
        raise InputError("no training image", path=manifest.path, hint="look at its training split")
    facts = [one for cases in inspected.values() for _, _, result in cases for one in result.images]
    suffixes = [_suffix(one.path) for one in facts]
    suffix = max(sorted(set(suffixes) - {""}), key=suffixes.count, default="")
    raster = suffix.lower() in _RASTER
    dims = {len(one.shape) for one in facts}
    if len(dims) != 1 or not dims <= {2, 3}:
        raise InputError(
            f"images of {sorted(dims)} dimensions in one set", path=manifest.path, hint="one bundle takes 2D or 3D"
        )
    files = Counter(len(case.images) for cases in inspected.values() for _, case, _ in cases).most_common(1)[0][0]
    stored = Counter(one.channels for one in facts).most_common(1)[0][0]
    channels = files * (1 if raster else stored)
    together = describe_inspected(manifest, [one for cases in inspected.values() for one in cases])
    intensity = together.intensity
    return DataFit(
        spatial_dims=dims.pop(),
        suffix=suffix,
        raster=raster,
        channels=channels,
        spacing=[round(v, 3) for v in together.spacing] if together.spacing and not raster else None,
        shape=together.shape,
        low=round(intensity["p0.5"], 4),
        high=round(intensity["p99.5"], 4),
        mean=round(intensity["mean"], 4),
        std=round(intensity["std"], 4),
        background=round(float(np.mean([one.zeros for one in facts])), 3),
        described={site: describe_inspected(manifest, cases) for site, cases in inspected.items()},
        foregrounds=foreground_intensities(
            manifest, [case for cases in inspected.values() for _, case, _ in cases], channels
        ),
    )


def _inspect(manifest: Manifest, case: Case) -> CaseReport:
    """The facts of one case.

    Raises:
        InputError: a file of it cannot be read.
    """
    kind = get_task(manifest.task)
    label = case.label if kind.label.is_path and isinstance(case.label, str) else None
    job = CaseJob(case.images, label=label, classes=declared_values(manifest) if kind.needs_names else {})
    result = inspect_case(job)
    for finding in result.findings:
        if finding.code == "unreadable":
            hint = finding.hint or "`monai-transfer check` tells all faults of a manifest"
            raise InputError(finding.fault, path=finding.file, hint=hint)
    return result
