"""One case inspected fully: every file read to its end, its checksum, its label; returned as plain JSON data.

The result holds numbers and hashes alone, no voxels, so that worker processes send little and memory stays bounded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import aff2axcodes
from PIL import Image

from monai_transfer.data.readers import SafeReader, Volume
from monai_transfer.errors import InputError
from monai_transfer.inspection.fixes import fixable_volume
from monai_transfer.inspection.labels import check_label
from monai_transfer.manifest.checksums import sha256_image

__all__ = ["QUANTILES", "inspect_case"]

QUANTILES = (0.5, 5.0, 25.0, 50.0, 75.0, 95.0, 99.5)
"""Percentiles of the intensities that are kept of each image."""

_SAMPLE = 50_000
_ANNOTATIONS = (".json", ".csv", ".tsv", ".txt", ".xml")


def inspect_case(job: dict[str, Any]) -> dict[str, Any]:
    """Inspect one case.

    Args:
        job: ``images`` (paths), ``sha256`` (a list as long, of hashes or ``None``), ``label`` (path or ``None``),
            ``sha256_label``, ``classes`` ({number: name}), ``max_memory`` (bytes or ``None``).

    Returns:
        ``findings`` (fields of ``Finding`` but case and split), ``images`` (facts of each image that could be read),
        ``label_values`` ({class number: voxels}).
    """
    reader = SafeReader(max_memory=job.get("max_memory"))
    findings: list[dict[str, Any]] = []
    volumes: list[Volume | None] = []
    facts: list[dict[str, Any]] = []
    for path, due in zip(job["images"], job["sha256"], strict=True):
        volume = _read(reader, path, findings)
        volumes.append(volume)
        findings += _check_sha256(path, due)
        if volume is not None:
            facts.append({"path": path, **_facts(volume)})
            faults = [*_image_faults(volume), *_geometry_faults(volume), *_raster_faults(path)]
            findings += [{"file": path, **fault} for fault in faults]
    first = volumes[0] if volumes else None
    for path, volume in zip(job["images"][1:], volumes[1:], strict=True):
        if first is not None and volume is not None and not _same_grid(first, volume):
            fault = f"not on the same grid as {job['images'][0]}, with which it forms one image"
            findings.append(_fault(path, "channel-grid", fault, "resample the channels to one grid"))
    values: dict[int, int] = {}
    label = job.get("label")
    if label is not None:
        findings += _check_sha256(label, job.get("sha256_label"))
        if Path(label).suffix.lower() in _ANNOTATIONS:
            if not Path(label).is_file():
                findings.append(_fault(label, "unreadable", "not found", "correct the path in the manifest"))
        else:
            mask = _read(SafeReader(max_memory=job.get("max_memory"), palette="index"), label, findings)
            if mask is not None:
                classes = {int(k): v for k, v in job.get("classes", {}).items()}
                # an image that cannot be read must not hide the label's own faults
                faults, values = check_label(mask, mask if first is None else first, classes)
                faults += [*_geometry_faults(mask), *_mask_faults(label)]
                findings += [{"file": label, **fault} for fault in faults]
    return {"findings": findings, "images": facts, "label_values": values}


def _read(reader: SafeReader, path: str, findings: list[dict[str, Any]]) -> Volume | None:
    try:
        return reader.read_volume(path)
    except InputError as error:
        file = str(error.path or path)
        fixable = fixable_volume(path)
        findings.append(_fault(file, "unreadable", error.fault, error.hint, fixable=fixable))
    except MemoryError:
        findings.append(_fault(path, "unreadable", "there is not enough memory to read it", "use fewer --jobs"))
    return None


def _check_sha256(path: str, due: str | None) -> list[dict[str, Any]]:
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


def _facts(volume: Volume) -> dict[str, Any]:
    flat = volume.array.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLE)].astype(np.float64)
    array = np.ascontiguousarray(volume.array)
    digest = hashlib.sha256(repr((array.shape, array.dtype.str)).encode())
    digest.update(array.data)
    spacing = volume.spacing
    return {
        "content": digest.hexdigest(),
        "shape": list(volume.spatial_shape),
        "channels": volume.channels,
        "spacing": None if spacing is None else [round(s, 4) for s in spacing],
        "orientation": None if volume.affine is None else "".join(map(str, aff2axcodes(volume.affine))),
        "modality": volume.meta.get("modality") or None,
        "quantiles": [round(float(q), 6) for q in np.percentile(sample, QUANTILES)],
        "zeros": round(float((sample == 0).mean()), 4),
        "mean": float(sample.mean()),
        "std": float(sample.std()),
    }


def _image_faults(volume: Volume) -> list[dict[str, Any]]:
    faults = []
    low, high = float(volume.array.min()), float(volume.array.max())
    if low == high and volume.array.size > 1:
        fault = f"every voxel is {low:g}"
        faults.append({"severity": "error", "code": "constant", "fault": fault, "hint": "export the image again"})
    if volume.array.dtype.kind in "iu" and max(abs(low), abs(high)) > 2**24:
        fault = f"integers up to {max(abs(low), abs(high)):.0f}, which float32 rounds (above 2^24)"
        faults.append({"severity": "warning", "code": "rounding", "fault": fault, "hint": "rescale the intensities"})
    if volume.meta.get("photometric") == "MONOCHROME1":
        fault = "MONOCHROME1: our reader and ITK show high as bright, pydicom-based readers the inverse"
        hint = "read it with monai_transfer.data.readers.SafeReader everywhere"
        faults.append({"severity": "warning", "code": "polarity", "fault": fault, "hint": hint})
    return faults


def _geometry_faults(volume: Volume) -> list[dict[str, Any]]:
    apart = volume.meta.get("qform_sform_voxels")
    if apart is None:
        return []
    fault = f"qform and sform are {apart:g} voxels apart at the far corner; the sform is used"
    hint = "write one affine to both"
    return [{"severity": "warning", "code": "qform-sform", "fault": fault, "hint": hint, "fixable": True}]


def _raster_faults(path: str) -> list[dict[str, Any]]:
    """Pictures that our reader reads right and MONAI's PILReader does not: palette, rotation, alpha, CMYK."""
    odd = _odd_picture(path)
    if odd is None:
        return []
    hint = "read it with monai_transfer.data.readers.SafeReader everywhere, or convert it"
    fault = f"{odd}: MONAI's own reader would load it wrongly"
    return [{"severity": "warning", "code": "picture", "fault": fault, "hint": hint, "fixable": True}]


def _mask_faults(path: str) -> list[dict[str, Any]]:
    odd = _odd_picture(path)
    if odd is None:
        return []
    hint = "store class numbers as a plain grey image"
    return [{"severity": "error", "code": "label-picture", "fault": f"label is {odd}", "hint": hint, "fixable": True}]


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


def _fault(file: str, code: str, fault: str, hint: str | None, fixable: bool = False) -> dict[str, Any]:
    return {"severity": "error", "file": file, "code": code, "fault": fault, "hint": hint, "fixable": fixable}
