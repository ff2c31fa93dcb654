"""DICOM segmentations and RT structure sets as masks on the grid of the series that they were drawn on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom

from monai_transfer.errors import InputError
from monai_transfer.manifest.contours import Contour, Drawing, draw_contours
from monai_transfer.manifest.dicom_grid import Grid
from monai_transfer.manifest.laterality import find_sides

__all__ = ["read_structures", "referenced_series", "structure_names"]

_SIDES = {"7771000": "left", "24028007": "right", "G-A101": "left", "G-A100": "right"}
"""Laterality as SNOMED codes, of both generations."""
_CODES = ("SegmentedPropertyTypeCodeSequence", "RTROIIdentificationCodeSequence")
"""What a segment, and what a region of interest, is coded as."""


def referenced_series(path: Path) -> set[str]:
    """UIDs of the series that a segmentation or structure set says it belongs to."""
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    found = {str(item.SeriesInstanceUID) for item in dataset.get("ReferencedSeriesSequence") or []}
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            found |= {str(item.SeriesInstanceUID) for item in study.get("RTReferencedSeriesSequence") or []}
    return found


def structure_names(path: Path) -> list[str]:
    """Names of the segments or regions of interest, with their side where they are coded with one."""
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    segments = [_segment_name(item) for item in dataset.get("SegmentSequence") or []]
    return segments or list(_roi_names(dataset).values())


def _roi_names(dataset: pydicom.Dataset) -> dict[int, str]:
    """By number; the side is coded in a region's observation (PS3.3 C.8.8.8)."""
    names = {
        int(roi.get("ROINumber") or 0): str(roi.get("ROIName") or "").strip() or f"ROI {roi.get('ROINumber')}"
        for roi in dataset.get("StructureSetROISequence") or []
    }
    for observation in dataset.get("RTROIObservationsSequence") or []:
        number = int(observation.get("ReferencedROINumber") or 0)
        if number in names:
            names[number] = _sided(names[number], observation)
    return names


def _segment_name(segment: pydicom.Dataset) -> str:
    name = str(segment.get("SegmentLabel") or segment.get("SegmentDescription") or "").strip()
    return _sided(name or f"segment {segment.get('SegmentNumber')}", segment)


def _sided(name: str, item: pydicom.Dataset) -> str:
    """The name, and the coded laterality where it has no side: two kidneys may both be called kidney."""
    coded = [c for key in _CODES for c in item.get(key) or []]
    modifiers = [m for c in coded for m in c.get("SegmentedPropertyTypeModifierCodeSequence") or []]
    for region in item.get("AnatomicRegionSequence") or []:
        modifiers += list(region.get("AnatomicRegionModifierSequence") or [])
    side = next((_SIDES[str(m.get("CodeValue"))] for m in modifiers if str(m.get("CodeValue")) in _SIDES), None)
    return f"{name} {side}" if side and not find_sides([name]) else name


def read_structures(path: Path, grid: Grid, nested: str = "hole") -> dict[str, Drawing]:
    """Every structure by name, its mask of the grid's shape (column, row, slice) and what is to be said of it.

    Args:
        path: a SEG or RTSTRUCT object.
        grid: of the series that it belongs to.
        nested: see :func:`~monai_transfer.manifest.contours.draw_contours`.

    Raises:
        InputError: the object does not lie on the grid, or cannot be decoded.
    """
    dataset = pydicom.dcmread(path)
    try:
        if str(dataset.Modality) == "RTSTRUCT":
            return _contours(dataset, grid, nested)
        return {name: Drawing(mask) for name, mask in _segments(dataset, grid, path).items()}
    except InputError as error:
        raise InputError(error.fault, path=error.path or path, hint=error.hint) from None
    except Exception as error:  # broken sequences and undecodable pixels raise many kinds
        fault = f"cannot be read as {dataset.Modality} ({error})"
        raise InputError(fault, path=path, hint="export it again") from None


def _contours(dataset: pydicom.Dataset, grid: Grid, nested: str) -> dict[str, Drawing]:
    names = _roi_names(dataset)
    pixel = float(np.linalg.norm(np.cross(grid.steps[:, 0], grid.steps[:, 1])))
    result: dict[str, Drawing] = {}
    for roi in dataset.get("ROIContourSequence") or []:
        contours = []
        for item in roi.get("ContourSequence") or []:
            points = np.array(item.get("ContourData") or [], dtype=float).reshape(-1, 3)
            contours.append(Contour(str(item.get("ContourGeometricType") or ""), grid.voxels(points)))
        number = int(roi.get("ReferencedROINumber") or 0)
        name = names.get(number, f"ROI {number}")
        drawn = draw_contours(contours, grid.shape, pixel, nested)
        if contours:
            result[name] = result[name].join(drawn) if name in result else drawn
    if not result:
        raise InputError("none of its structures has a contour", hint="export it again, or leave it out")
    return result


def _segments(dataset: pydicom.Dataset, grid: Grid, path: Path) -> dict[str, np.ndarray]:
    names = {int(item.SegmentNumber): _segment_name(item) for item in dataset.SegmentSequence}
    pixels = dataset.pixel_array.reshape(-1, int(dataset.Rows), int(dataset.Columns))
    kind = str(dataset.get("SegmentationType") or "BINARY")
    if kind == "FRACTIONAL":
        pixels = pixels >= int(dataset.get("MaximumFractionalValue") or 255) / 2
    if pixels.shape[1:] != (grid.shape[1], grid.shape[0]):
        raise InputError("has another matrix than its series", path=path, hint="resample it to the series")
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    result = {name: np.zeros(grid.shape, dtype=bool) for name in names.values()}
    corners = np.array([[0, 0], [grid.shape[0] - 1, 0], [0, grid.shape[1] - 1]], dtype=float)
    for frame, group in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        k = _slice_of(group, shared, grid, corners)
        if k is None:
            raise InputError("a frame does not lie on the series' grid", path=path, hint="resample it to the series")
        if kind == "LABELMAP":
            for number, name in names.items():
                result[name][:, :, k] |= (frame == number).T
        else:
            number = int(_group(group, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
            result[names[number]][:, :, k] |= (frame > 0).T
    return result


def _slice_of(group: pydicom.Dataset, shared: pydicom.Dataset, grid: Grid, corners: np.ndarray) -> int | None:
    """The slice on which a frame lies, by its place, else by the image that it was derived from; ``None``: on none."""
    places = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    if all(keyword in group or keyword in shared for keyword in places):
        position = np.array(_group(group, shared, "PlanePositionSequence").ImagePositionPatient, dtype=float)
        direction = np.array(_group(group, shared, "PlaneOrientationSequence").ImageOrientationPatient, dtype=float)
        spacing = np.array(_group(group, shared, "PixelMeasuresSequence").PixelSpacing, dtype=float)
        # Three corners of the frame must fall on the grid's: that holds position, direction and spacing at once.
        points = position + corners[:, :1] * spacing[1] * direction[:3] + corners[:, 1:] * spacing[0] * direction[3:]
        index = grid.voxels(points)
        k = round(float(index[0, 2]))
        lies = np.allclose(index, np.column_stack([corners, np.full(3, k)]), atol=0.1) and 0 <= k < grid.shape[2]
        return k if lies else None
    for derivation in group.get("DerivationImageSequence") or []:
        for image in derivation.get("SourceImageSequence") or []:
            if str(image.get("ReferencedSOPInstanceUID")) in grid.slices:
                return grid.slices[str(image.ReferencedSOPInstanceUID)]
    hint = "export it again with plane positions"
    raise InputError("its frames say neither where they lie nor which image they were drawn on", hint=hint)


def _group(frame: pydicom.Dataset, shared: pydicom.Dataset, keyword: str) -> pydicom.Dataset:
    return frame[keyword].value[0] if keyword in frame else shared[keyword].value[0]
