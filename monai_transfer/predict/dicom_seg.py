"""A predicted mask as a DICOM SEG that refers to every slice it was drawn on, so that an archive shows it there.

Standard: DICOM PS3.3 A.51 (Segmentation IOD), C.8.20. The object belongs to the patient's study, so it carries the
patient's identity, as the standard asks; nothing else that ``predict`` writes does.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.sr.codedict import codes

import monai_transfer
from monai_transfer.errors import InputError
from monai_transfer.files import atomic_path
from monai_transfer.library_logging import heard_from

__all__ = ["check_highdicom", "write_dicom_seg"]

_SCHEME = "99MONAITR"  # a private coding scheme, as the prefix 99 says: class names of a bundle are no standard codes
_TISSUE = ("85756007", "SCT", "Tissue")
_MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ReferringPhysicianName", "StudyID"),
)
_NIFTI = "use --format nifti"


def check_highdicom() -> Any:
    """The module ``highdicom``.

    Raises:
        InputError: it is not installed.
    """
    try:
        import highdicom
    except ImportError:
        hint = "pip install 'monai-transfer[dicom]'"
        raise InputError("writing DICOM SEG needs highdicom", hint=hint) from None
    return highdicom


def write_dicom_seg(
    mask: str | Path,
    files: Sequence[str | Path],
    target: str | Path,
    names: dict[int, str],
    *,
    model: str = "",
    segments: Mapping[str, Sequence[int]] | None = None,
) -> Path:
    """Write a label map as DICOM SEG (binary, one segment for each class but the background).

    Where each slice of the mask belongs is found by the slices' positions, not by their order.

    Args:
        mask: NIfTI file of class numbers, or of the values in ``segments``, on the grid of the series, X x Y x Z.
        files: the DICOM files of the series, in any order; or one multi-frame file.
        target: the file to write.
        names: class names by number; 0 is the background.
        model: name of the bundle, for the series description.
        segments: the mask's values of each segment, where they are not the class numbers; segments may overlap, as
            regions do.

    Raises:
        InputError: ``highdicom`` is missing, the mask does not lie on the slices, or the images cannot be referred to.
    """
    hd = check_highdicom()
    target = Path(target)
    image = nibabel.load(mask)
    array = np.asarray(image.dataobj)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[..., None]
    place = Path(files[0]).parent if len(files) > 1 else Path(files[0])
    if array.ndim != 3:
        raise InputError(f"a prediction of shape {array.shape} is no label map", path=place, hint=_NIFTI)
    sources = _sources(files, place)
    slices = _slice_numbers(sources, image.affine, array.shape, place)
    frames = np.stack([array[:, :, k].T for k in slices])
    if segments is None:
        numbers = sorted(number for number in names if number != 0) or [1]
        segments = {names.get(number, f"class {number}"): (number,) for number in numbers}
    pixels = _pixels(frames, segments, place)
    digest = hashlib.sha256(f"{sources[0].SeriesInstanceUID}\0{model}\0".encode() + pixels.tobytes()).hexdigest()
    algorithm = hd.AlgorithmIdentificationSequence(
        name=(model or "monai_transfer")[:64],
        family=codes.DCM.ArtificialIntelligence,
        version=monai_transfer.__version__,
    )
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=segment,
            segment_label=name[:64],
            segmented_property_category=hd.sr.CodedConcept(*_TISSUE),
            segmented_property_type=_code(hd, name),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for segment, name in enumerate(segments, 1)
    ]
    try:
        # highdicom would log identifiers
        with heard_from({"highdicom": logging.ERROR}), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote names
            made = hd.seg.Segmentation(
                source_images=sources,
                pixel_array=pixels,
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=descriptions,
                series_instance_uid=_uid(digest, "series"),
                series_number=9000 + int(digest[:3], 16) % 1000,
                sop_instance_uid=_uid(digest, "instance"),
                instance_number=1,
                manufacturer="monai_transfer",
                manufacturer_model_name=(model or "monai_transfer")[:64],
                software_versions=monai_transfer.__version__,
                device_serial_number="none",
                series_description=f"Segmentation by {model}"[:64],
                content_description="predicted, not reviewed",
            )
    except Exception as error:  # highdicom refuses what it cannot refer to with many kinds
        text = str(error) if isinstance(error, AttributeError) else type(error).__name__  # others may quote values
        raise InputError(f"cannot be referred to by a DICOM SEG ({text})", path=place, hint=_NIFTI) from None
    with atomic_path(target) as temporary:
        made.save_as(temporary)
    return target


def _pixels(frames: np.ndarray, segments: Mapping[str, Sequence[int]], place: Path) -> np.ndarray:
    """Segment numbers, which count from 1 without a gap; with segments that overlap, a last axis of them.

    Raises:
        InputError: the mask holds a value of no segment.
    """
    known = [value for values in segments.values() for value in values]
    odd = sorted(set(np.unique(frames).tolist()) - set(known) - {0})
    if odd:
        raise InputError(f"the prediction holds the value {odd[0]:g}, which is no class's", path=place, hint=_NIFTI)
    masks = [np.isin(frames, list(values)) for values in segments.values()]
    if len(known) > len(set(known)):
        return np.stack(masks, axis=-1).astype(np.uint8)
    pixels = np.zeros(frames.shape, dtype=np.uint8 if len(masks) < 256 else np.uint16)
    for segment, mask in enumerate(masks, 1):
        pixels[mask] = segment
    return pixels


def _sources(files: Sequence[str | Path], place: Path) -> list[pydicom.FileDataset]:
    try:
        sources = [pydicom.dcmread(path) for path in files]
    except Exception as error:  # pydicom raises many kinds
        raise InputError(
            f"cannot be read for DICOM SEG ({type(error).__name__})",
            path=place,
            hint="export the series again, or predict with --format nifti",
        ) from None
    for source in sources:
        for keyword in _MAY_BE_EMPTY:  # de-identified files often lack what the standard only allows to be empty
            if keyword not in source:
                setattr(source, keyword, None)
    return sources


def _uid(digest: str, kind: str) -> str:
    """The same prediction has the same UID, and another one another."""
    text = hashlib.sha256(f"{digest} {kind}".encode()).hexdigest()
    return f"2.25.{int(text[:30], 16)}"


def _code(hd: Any, name: str) -> Any:
    value = "".join(c if c.isalnum() else "_" for c in name)[:16] or "class"
    return hd.sr.CodedConcept(value, _SCHEME, name[:64])


def _slice_numbers(
    sources: Sequence[pydicom.Dataset], affine: np.ndarray, shape: tuple[int, ...], place: Path
) -> list[int]:
    """For every source frame, which slice of the mask lies on it."""
    positions = _positions(sources)
    if positions is None:  # a lone projection: nothing but its own pixels
        if shape[2] != 1:
            raise InputError("frames without positions cannot be referred to", path=place, hint=_NIFTI)
        return [0]
    to_voxel = np.linalg.inv(np.asarray(affine, dtype=float) @ np.eye(4))
    points = np.column_stack([np.asarray(positions) * [-1, -1, 1], np.ones(len(positions))])  # LPS to RAS
    index = (to_voxel @ points.T).T[:, :3]
    numbers = np.round(index[:, 2]).astype(int)
    rows, columns = int(sources[0].Rows), int(sources[0].Columns)
    fits = np.abs(index - np.column_stack([np.zeros((len(index), 2)), numbers])).max() < 0.1
    if not fits or sorted(numbers) != list(range(shape[2])) or shape[:2] != (columns, rows):
        raise InputError("the prediction does not lie on the slices", path=place, hint=_NIFTI)
    return numbers.tolist()


def _positions(sources: Sequence[pydicom.Dataset]) -> list[list[float]] | None:
    if "PerFrameFunctionalGroupsSequence" in sources[0]:
        shared = sources[0].get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
        groups = [
            (group.get("PlanePositionSequence") or shared[0].get("PlanePositionSequence") or [None])[0]
            for group in sources[0].PerFrameFunctionalGroupsSequence
        ]
        found = [group.get("ImagePositionPatient") if group is not None else None for group in groups]
    else:
        found = [source.get("ImagePositionPatient") for source in sources]
    known = [[float(v) for v in position] for position in found if position is not None]
    return known if len(known) == len(found) else None
