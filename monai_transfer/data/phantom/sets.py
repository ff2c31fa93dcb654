"""The embedded sets: which patient stands in which split, the files of a case, and the manifest over all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_transfer.manifest.checksums import sha256_image
from monai_transfer.manifest.model import Manifest
from monai_transfer.tasks.classification import CLASSIFICATION
from monai_transfer.tasks.localization import LOCALIZATION
from monai_transfer.tasks.regression import REGRESSION
from monai_transfer.tasks.segmentation import SEGMENTATION

from .sites import SITES, Scan, Site, scan_patient
from .write import axial_slices, write_dicom, write_nifti, write_png

__all__ = ["SEED", "SPLITS", "TASKS", "EmbeddedSet", "write_set"]

SEED = 2028

# Patients of each site by split, as (first, last) ranges. The 3D sets take the first range, classification takes both,
# so that a patient stands in the same split of every task.
SPLITS: dict[str, dict[str, list[tuple[int, int]]]] = {
    "site_a": {"training": [(1, 16), (29, 44)], "validation": [(17, 20), (45, 46)], "test": [(21, 28), (47, 50)]},
    "site_b": {"training": [(1, 14), (31, 40)], "validation": [(15, 18), (41, 42)], "test": [(19, 30), (43, 46)]},
}
DICOM_CASE = ("site_b", 20)  # this case's image is a DICOM series, as a clinic would send it
SLICE_REACH_MM = 44.0  # slices come from this far below to this far above the middle
LESION_MM2 = 150.0  # a slice is called "lesion" from this area on; slices with less, but some, are left out
SLICES_PER_CLASS = 5  # and patient, at most

Items = Iterator[dict[str, Any]]


def write_set(task: str, folder: Path, *, seed: int = SEED, patients: int | None = None) -> None:
    """Write images, labels and ``manifest.json`` of the set for ``task`` into the new folder ``folder``.

    Equal arguments give equal bytes.

    Args:
        task: a key of ``TASKS``.
        folder: is made.
        seed: of the patients.
        patients: limits the set to so many per site and split.

    One patient per site and split:

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "set"
    >>> write_set("classification", folder, patients=1)
    >>> manifest = Manifest.load(folder / "manifest.json")
    >>> manifest.class_names, sorted({case.site for case in manifest.test})
    (['no lesion', 'lesion'], ['site_a', 'site_b'])
    """
    chosen = TASKS[task]
    (folder / "images").mkdir(parents=True)
    splits: dict[str, list[dict[str, Any]]] = {}
    for site_name, ranges in SPLITS.items():
        for split, spans in ranges.items():
            numbers = [n for first, last in spans[: chosen.ranges] for n in range(first, last + 1)]
            for number in numbers[:patients]:
                scan = scan_patient(SITES[site_name], number, seed=seed)
                splits.setdefault(split, []).extend(chosen.write(folder, SITES[site_name], number, scan, seed))
    head: dict[str, Any] = {
        "name": f"embedded-{task}",
        "description": f"Simulated, no human subject: {chosen.wording}; two sites whose scanners and sequences differ",
        "task": task,
        "modality": "MR",
        "licence": "Apache-2.0",
        "reference": "monai_transfer.data.phantom",
        "channel_names": {"0": "MR"},
    }
    if chosen.labels:
        head["labels"] = {str(index): name for index, name in enumerate(chosen.labels)}
    Manifest.from_dict(head | splits, folder).save(folder / "manifest.json")


def _segmentation(folder: Path, site: Site, number: int, scan: Scan, seed: int) -> Items:
    item = _volume(folder, site, number, scan)
    item["label"] = f"labels/{item['case']}.nii.gz"
    (folder / "labels").mkdir(exist_ok=True)
    write_nifti(folder / item["label"], scan.label, scan.affine)
    yield item


def _localization(folder: Path, site: Site, number: int, scan: Scan, seed: int) -> Items:
    """The lesions alone: their connected components are what is to be found."""
    item = _volume(folder, site, number, scan)
    item["label"] = f"labels/{item['case']}.nii.gz"
    (folder / "labels").mkdir(exist_ok=True)
    write_nifti(folder / item["label"], (scan.label == 2).astype(scan.label.dtype), scan.affine)
    yield item


def _regression(folder: Path, site: Site, number: int, scan: Scan, seed: int) -> Items:
    yield _volume(folder, site, number, scan) | {"label": round(scan.ventricle_ml, 2)}


def _classification(folder: Path, site: Site, number: int, scan: Scan, seed: int) -> Items:
    """Up to five slices of each class, drawn at random from the middle of the head."""
    rng = np.random.default_rng([seed, site.number, number, 2])
    count = len(scan.lesion_mm2)
    heights = (np.arange(count) - (count - 1) / 2) * site.spacing[2]
    central = np.abs(heights) <= SLICE_REACH_MM
    chosen: dict[int, str] = {}
    for name, suits in {"lesion": scan.lesion_mm2 >= LESION_MM2, "no lesion": scan.lesion_mm2 == 0}.items():
        for index in rng.permutation(np.flatnonzero(suits & central))[:SLICES_PER_CLASS]:
            chosen[int(index)] = name
    indices = sorted(chosen)
    for index, pixels in zip(indices, axial_slices(scan.image, scan.affine, heights[indices]), strict=True):
        case = f"{site.name}_{number:03d}_slice{index:02d}"
        write_png(folder / f"images/{case}.png", pixels)
        yield _item(folder, site, number, f"images/{case}.png", case) | {"label": chosen[index]}


@dataclass(frozen=True)
class EmbeddedSet:
    """One embedded set.

    Args:
        write: writes the files of a patient and yields its cases' items.
        wording: what is to be predicted, for the manifest's description.
        labels: the classes in the order of their numbers.
        ranges: how many of the ranges of patients in ``SPLITS`` are in it.

    >>> TASKS["classification"].labels, TASKS["classification"].ranges  # twice as many patients as the 3D sets
    (('no lesion', 'lesion'), 2)
    """

    write: Callable[..., Items]
    wording: str
    labels: tuple[str, ...] = ()
    ranges: int = 1


TASKS: dict[str, EmbeddedSet] = {
    SEGMENTATION.name: EmbeddedSet(
        _segmentation, "ventricles and lesions in 3D head MR", ("background", "ventricle", "lesion")
    ),
    CLASSIFICATION.name: EmbeddedSet(
        _classification, "lesion or no lesion in axial slices of head MR", ("no lesion", "lesion"), ranges=2
    ),
    REGRESSION.name: EmbeddedSet(_regression, "volume of the ventricles (ml) from 3D head MR"),
    LOCALIZATION.name: EmbeddedSet(_localization, "where lesions are in 3D head MR", ("background", "lesion")),
}
"""The set of each task that has one."""


def _volume(folder: Path, site: Site, number: int, scan: Scan) -> dict[str, Any]:
    """Write the 3D image; returns the case's item, without a label yet."""
    case = f"{site.name}_{number:03d}"
    if (site.name, number) == DICOM_CASE:
        image = f"images/{case}"
        write_dicom(folder / image, scan.image, scan.affine, patient_id=_patient(site, number), protocol=site.protocol)
    else:
        image = f"images/{case}.nii.gz"
        write_nifti(folder / image, scan.image, scan.affine)
    return _item(folder, site, number, image, case)


def _item(folder: Path, site: Site, number: int, image: str, case: str) -> dict[str, Any]:
    checksum = sha256_image(folder / image)
    patient = _patient(site, number)
    return {
        "image": image,
        "case": case,
        "patient": patient,
        "site": site.name,
        "acquired": number,
        "sha256": checksum,
    }


def _patient(site: Site, number: int) -> str:
    return f"PHANTOM-{site.name[-1].upper()}{number:03d}"
