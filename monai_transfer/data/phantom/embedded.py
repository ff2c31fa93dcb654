"""The embedded sets: made from the phantoms on first use, kept in a cache, described by a manifest."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.files import sha256_file, write_json

from .sites import SITES, Scan, Site, scan_patient
from .write import axial_slices, write_dicom, write_nifti, write_png

__all__ = ["TASKS", "embedded_set"]

TASKS = ("segmentation", "classification", "regression")
VERSION = 1
SEED = 2024

# Patients of each site by split, as (first, last) ranges. The 3D sets take the first range, classification takes both,
# so a patient stands in the same split of every task.
SPLITS: dict[str, dict[str, list[tuple[int, int]]]] = {
    "site_a": {"training": [(1, 16), (29, 34)], "validation": [(17, 20), (35, 36)], "test": [(21, 28), (37, 40)]},
    "site_b": {"training": [(1, 14), (31, 34)], "validation": [(15, 18), (35, 36)], "test": [(19, 30), (37, 40)]},
}
DICOM_CASE = ("site_b", 20)  # this case's image is a DICOM series, as a clinic would send it
SLICE_REACH_MM = 44.0  # slices are taken from this far below to this far above the middle
LESION_MM2 = 100.0  # a slice counts as "lesion" from this area on; slices with less, but some, are left out
SLICES_PER_CLASS = 5

log = logging.getLogger(__name__)


def embedded_set(task: str = "segmentation", folder: str | Path | None = None) -> str:
    """Folder of the embedded set for ``task``, made when it is not there yet (some seconds).

    The set is written beside its final place and renamed, so a folder of that name is always complete, also when
    several processes ask at once. Its name ends with a hash of the generator's code: another generator, another folder.

    Args:
        task: "segmentation" (3D, 0 background, 1 ventricle, 2 lesion), "classification" (64 x 64 slices, lesion or no
            lesion) or "regression" (3D image to the volume of the ventricles in ml).
        folder: where sets are kept; by default ``$MONAI_TRANSFER_CACHE``, else ``$XDG_CACHE_HOME/monai_transfer``, else
            ``~/.cache/monai_transfer``.

    Returns:
        Path of the set; it holds ``manifest.json``.

    Raises:
        InputError: unknown task, or the folder cannot be written.
    """
    if task not in TASKS:
        raise InputError(f"unknown task {task!r}", mend=f"choose one of {', '.join(TASKS)}")
    root = Path(folder) if folder is not None else _cache_root()
    target = root.absolute() / f"embedded-{task}-v{VERSION}-{_code_hash()}"
    if not (target / "manifest.json").is_file():
        try:
            _make(task, target)
        except OSError as error:
            mend = "set MONAI_TRANSFER_CACHE to a folder that you may write to"
            raise InputError(f"cannot make the embedded set: {error.strerror}", path=root, mend=mend) from error
    return str(target)


def _cache_root() -> Path:
    if own := os.environ.get("MONAI_TRANSFER_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "monai_transfer"


def _code_hash() -> str:
    """Short hash of the generator's source, so that a cache never serves the data of another version."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _make(task: str, target: Path) -> None:
    log.info("making the embedded %s set in %s (once)", task, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in target.parent.glob(f".{target.name}.*"):  # left by a killed process
        if time.time() - stale.stat().st_mtime > 3600:
            shutil.rmtree(stale, ignore_errors=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        write_set(task, temporary)
        try:
            temporary.rename(target)
        except OSError:
            if not (target / "manifest.json").is_file():  # else another process was faster: its set is as good
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_set(task: str, folder: Path, *, seed: int = SEED, patients: int | None = None) -> None:
    """Write the set for ``task`` into ``folder``; ``patients`` limits it to so many per site and split (for tests)."""
    (folder / "images").mkdir(parents=True)
    if task == "segmentation":
        (folder / "labels").mkdir()
    writer = {"segmentation": _segmentation, "classification": _classification, "regression": _regression}[task]
    splits: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "test": []}
    for site_name, ranges in SPLITS.items():
        site = SITES[site_name]
        for split, spans in ranges.items():
            numbers = [
                n for first, last in spans[: 2 if task == "classification" else 1] for n in range(first, last + 1)
            ]
            for number in numbers[:patients]:
                scan = scan_patient(site, number, seed=seed)
                for item in writer(folder, site, number, scan):
                    splits[split].append(item)
    write_json(folder / "manifest.json", {**_describe(task), **splits})


def _describe(task: str) -> dict[str, Any]:
    what = {
        "segmentation": "ventricles and lesions in 3D head MR",
        "classification": "lesion or no lesion in axial slices of head MR",
        "regression": "volume of the ventricles (ml) from 3D head MR",
    }[task]
    head: dict[str, Any] = {
        "name": f"embedded-{task}",
        "description": f"Simulated, no human subject: {what}; two sites whose scanners and sequences differ",
        "task": task,
        "modality": "MR",
        "licence": "Apache-2.0",
        "reference": "monai_transfer.data.phantom",
        "channel_names": {"0": "MR"},
    }
    if task == "segmentation":
        head["labels"] = {"0": "background", "1": "ventricle", "2": "lesion"}
    if task == "classification":
        head["labels"] = {"0": "no lesion", "1": "lesion"}
    return head


def _item(folder: Path, site: Site, number: int, image: str, label: str | float, case: str) -> dict[str, Any]:
    item: dict[str, Any] = {
        "image": image,
        "label": label,
        "case": case,
        "patient": _patient(site, number),
        "site": site.name,
        "acquired": number,
    }
    if (folder / image).is_file():
        item["sha256"] = sha256_file(folder / image)
    return item


def _patient(site: Site, number: int) -> str:
    return f"PHANTOM-{site.name[-1].upper()}{number:03d}"


def _write_image(folder: Path, site: Site, number: int, scan: Scan) -> tuple[str, str]:
    """Write the 3D image; returns its path below ``folder`` and the case's name."""
    case = f"{site.name}_{number:03d}"
    if (site.name, number) == DICOM_CASE:
        image = f"images/{case}"
        patient = _patient(site, number)
        write_dicom(folder / image, scan.image, scan.affine, patient_id=patient, protocol=site.protocol)
    else:
        image = f"images/{case}.nii.gz"
        write_nifti(folder / image, scan.image, scan.affine)
    return image, case


def _segmentation(folder: Path, site: Site, number: int, scan: Scan) -> Iterator[dict[str, Any]]:
    image, case = _write_image(folder, site, number, scan)
    label = f"labels/{case}.nii.gz"
    write_nifti(folder / label, scan.label, scan.affine)
    yield _item(folder, site, number, image, label, case)


def _regression(folder: Path, site: Site, number: int, scan: Scan) -> Iterator[dict[str, Any]]:
    image, case = _write_image(folder, site, number, scan)
    yield _item(folder, site, number, image, round(scan.ventricle_ml, 2), case)


def _classification(folder: Path, site: Site, number: int, scan: Scan) -> Iterator[dict[str, Any]]:
    """Up to five slices of each class, drawn at random from the middle of the head."""
    rng = np.random.default_rng([SEED, site.number, number, 2])
    heights = (np.arange(len(scan.lesion_mm2)) - (len(scan.lesion_mm2) - 1) / 2) * site.spacing[2]
    central = np.abs(heights) <= SLICE_REACH_MM
    chosen: dict[int, str] = {}
    for name, suits in {"lesion": scan.lesion_mm2 >= LESION_MM2, "no lesion": scan.lesion_mm2 == 0}.items():
        found = np.flatnonzero(suits & central)
        for index in rng.permutation(found)[:SLICES_PER_CLASS]:
            chosen[int(index)] = name
    indices = sorted(chosen)
    for index, pixels in zip(indices, axial_slices(scan.image, scan.affine, heights[indices]), strict=True):
        case = f"{site.name}_{number:03d}_slice{index:02d}"
        write_png(folder / f"images/{case}.png", pixels)
        yield _item(folder, site, number, f"images/{case}.png", chosen[index], case)
