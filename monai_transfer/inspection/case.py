"""One case inspected fully: every file read to its end, its checksum, its label.

The result holds numbers and hashes alone, no voxels, so that worker processes send little and memory stays bounded.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from nibabel.orientations import aff2axcodes
from PIL import Image

from monai_transfer.data.readers import SafeReader, Volume
from monai_transfer.errors import InputError
from monai_transfer.inspection.facts import CaseJob, CaseReport, ImageFacts
from monai_transfer.inspection.finding import Finding
from monai_transfer.inspection.fixes import fixable_volume
from monai_transfer.inspection.labels import check_label
from monai_transfer.manifest.checksums import sha256_image

__all__ = ["QUANTILES", "inspect_case"]

QUANTILES = (0.5, 5.0, 25.0, 50.0, 75.0, 95.0, 99.5)
"""Percentiles of the intensities that are kept of each image."""

_SAMPLE = 50_000
_ANNOTATIONS = (".json", ".csv", ".tsv", ".txt", ".xml")


def inspect_case(job: CaseJob) -> CaseReport:
    """Inspect one case.

    Args:
        job: its files, and what is declared of them.

    Returns:
        Faults, facts of each image that could be read, and the voxels of each class. Faults are never raised.
    """
    reader = SafeReader(max_memory=job.max_memory)
    findings: list[Finding] = []
    volumes: list[Volume | None] = []
    facts: list[ImageFacts] = []
    for path, due in zip(job.images, job.sha256 or [None] * len(job.images), strict=True):
        volume = _read(reader, path, findings)
        volumes.append(volume)
        findings += _check_sha256(path, due)
        if volume is not None:
            facts.append(_facts(path, volume))
            faults = [*_image_faults(volume), *_geometry_faults(volume), *_raster_faults(path)]
            findings += [replace(fault, file=path) for fault in faults]
    first = volumes[0] if volumes else None
    for path, volume in zip(job.images[1:], volumes[1:], strict=True):
        if first is not None and volume is not None and not _same_grid(first, volume):
            fault = f"not on the same grid as {job.images[0]}, with which it forms one image"
            findings.append(_fault(path, "channel-grid", fault, "resample the channels to one grid"))
    values: dict[int, int] = {}
    label = job.label
    if label is not None:
        findings += _check_sha256(label, job.sha256_label)
        if Path(label).suffix.lower() in _ANNOTATIONS:
            if not Path(label).is_file():
                findings.append(_fault(label, "unreadable", "not found", "correct the path in the manifest"))
        else:
            mask = _read(SafeReader(max_memory=job.max_memory, palette="index"), label, findings)
            if mask is not None:
                # an image that cannot be read must not hide the label's own faults
                faults, values = check_label(mask, mask if first is None else first, job.classes)
                faults += [*_geometry_faults(mask), *_mask_faults(label)]
                findings += [replace(fault, file=label) for fault in faults]
    return CaseReport(findings, facts, values)


def _read(reader: SafeReader, path: str, findings: list[Finding]) -> Volume | None:
    try:
        return reader.read_volume(path)
    except InputError as error:
        file = str(error.path or path)
        fixable = fixable_volume(path)
        findings.append(_fault(file, "unreadable", error.fault, error.hint, fixable=fixable))
    except MemoryError:
        findings.append(_fault(path, "unreadable", "there is not enough memory to read it", "use fewer --jobs"))
    return None


def _check_sha256(path: str, due: str | None) -> list[Finding]:
    if due is None or not Path(path).exists():
        return []
    try:
        found = sha256_image(path)
    except OSError as error:
        return [_fault(path, "unreadable", f"cannot be opened ({error.strerror})", None)]
    if found == due:
        return []
    fault = "its content is not what the manifest was made of (sha256 differs)"
    return [
        _fault(path, "sha256", fault, "copy the file again, or build the manifest again if it was changed on purpose")
    ]


def _facts(path: str, volume: Volume) -> ImageFacts:
    flat = volume.array.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLE)].astype(np.float64)
    array = np.ascontiguousarray(volume.array)
    digest = hashlib.sha256(repr((array.shape, array.dtype.str)).encode())
    digest.update(array.data)
    spacing = volume.spacing
    return ImageFacts(
        path=path,
        content=digest.hexdigest(),
        shape=list(volume.spatial_shape),
        channels=volume.channels,
        spacing=None if spacing is None else [round(s, 4) for s in spacing],
        orientation=None if volume.affine is None else "".join(map(str, aff2axcodes(volume.affine))),
        modality=volume.meta.get("modality") or None,
        quantiles=[round(float(q), 6) for q in np.percentile(sample, QUANTILES)],
        zeros=round(float((sample == 0).mean()), 4),
        mean=float(sample.mean()),
        std=float(sample.std()),
    )


def _image_faults(volume: Volume) -> list[Finding]:
    faults = []
    low, high = float(volume.array.min()), float(volume.array.max())
    if low == high and volume.array.size > 1:
        fault = f"every voxel is {low:g}"
        faults.append(Finding("error", fault, "constant", hint="export the image again"))
    if volume.array.dtype.kind in "iu" and max(abs(low), abs(high)) > 2**24:
        fault = f"integers up to {max(abs(low), abs(high)):.0f}, which float32 rounds (above 2^24)"
        faults.append(Finding("warning", fault, "rounding", hint="rescale the intensities"))
    if volume.meta.get("photometric") == "MONOCHROME1":
        fault = "MONOCHROME1: our reader and ITK show high as bright, pydicom-based readers the inverse"
        hint = "read it with monai_transfer.data.readers.SafeReader everywhere"
        faults.append(Finding("warning", fault, "polarity", hint=hint))
    return faults


def _geometry_faults(volume: Volume) -> list[Finding]:
    apart = volume.meta.get("qform_sform_voxels")
    if apart is None:
        return []
    fault = f"qform and sform are {apart:g} voxels apart at the far corner; the sform is used"
    hint = "write one affine to both"
    return [Finding("warning", fault, "qform-sform", hint=hint, fixable=True)]


def _raster_faults(path: str) -> list[Finding]:
    """Pictures that our reader reads right and MONAI's PILReader does not: palette, rotation, alpha, CMYK."""
    odd = _odd_picture(path)
    if odd is None:
        return []
    hint = "read it with monai_transfer.data.readers.SafeReader everywhere, or convert it"
    fault = f"{odd}: MONAI's own reader would load it wrongly"
    return [Finding("warning", fault, "picture", hint=hint, fixable=True)]


def _mask_faults(path: str) -> list[Finding]:
    odd = _odd_picture(path)
    if odd is None:
        return []
    hint = "store class numbers as a plain grey image"
    return [Finding("error", f"label is {odd}", "label-picture", hint=hint, fixable=True)]


def _odd_picture(path: str) -> str | None:
    try:
        with Image.open(path, formats=["PNG", "JPEG", "TIFF", "BMP"]) as image:
            if image.mode in ("P", "PA"):
                return "a palette image"
            if image.mode in ("RGBA", "LA", "CMYK"):
                return f"{'an' if image.mode != 'CMYK' else 'a'} {image.mode} image"
            if image.getexif().get(0x0112, 1) != 1:
                return "rotated by an EXIF tag"
    except Exception:  # volumes, folders and damaged pictures: the reader has its say about these
        return None
    return None


def _same_grid(a: Volume, b: Volume) -> bool:
    if a.spatial_shape != b.spatial_shape or (a.affine is None) != (b.affine is None):
        return False
    return a.affine is None or b.affine is None or bool(np.allclose(a.affine, b.affine, rtol=1e-4, atol=1e-3))


def _fault(file: str, code: str, fault: str, hint: str | None, fixable: bool = False) -> Finding:
    return Finding("error", fault, code, file, hint=hint, fixable=fixable)
