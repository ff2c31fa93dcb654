"""DICOM segmentations and RT structure sets as masks on the grid of the series that they were drawn on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from matplotlib.path import Path as Polygon

from monai_transfer.errors import InputError
from monai_transfer.manifest.dicom_grid import Grid

__all__ = ["read_structures", "referenced_series", "structure_names"]


def referenced_series(path: Path) -> set[str]:
    """UIDs of the series that a segmentation or structure set says it belongs to."""
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    found = {str(item.SeriesInstanceUID) for item in dataset.get("ReferencedSeriesSequence") or []}
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            found |= {str(item.SeriesInstanceUID) for item in study.get("RTReferencedSeriesSequence") or []}
    return found


def structure_names(path: Path) -> list[str]:
    """Names of the segments or regions of interest."""
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    segments = [str(item.get("SegmentLabel") or "") for item in dataset.get("SegmentSequence") or []]
    return segments or [str(item.get("ROIName") or "") for item in dataset.get("StructureSetROISequence") or []]


def read_structures(path: Path, grid: Grid) -> dict[str, np.ndarray]:
    """Every structure by name, as a boolean mask of the grid's shape (column, row, slice).

    A voxel belongs to a contour when its centre lies inside; contours of one structure within one slice cut holes into
    each other (even-odd), as the standard has it for nested ones.

    Raises:
        InputError: the object does not lie on the grid, or cannot be decoded.
    """
    dataset = pydicom.dcmread(path)
    read = _contours if str(dataset.Modality) == "RTSTRUCT" else _segments
    try:
        return read(dataset, grid, path)
    except InputError:
        raise
    except Exception as error:  # broken sequences and undecodable pixels raise many kinds
        raise InputError(f"cannot be read as {dataset.Modality} ({error})", path=path) from None


def _contours(dataset: pydicom.Dataset, grid: Grid, path: Path) -> dict[str, np.ndarray]:
    names = {int(roi.ROINumber): str(roi.get("ROIName") or "") for roi in dataset.StructureSetROISequence}
    columns, rows, slices = grid.shape
    result: dict[str, np.ndarray] = {}
    for roi in dataset.ROIContourSequence:
        mask = np.zeros(grid.shape, dtype=bool)
        drawn = 0
        for contour in roi.get("ContourSequence") or []:
            if str(contour.ContourGeometricType) != "CLOSED_PLANAR":
                continue
            points = grid.voxels(np.array(contour.ContourData, dtype=float).reshape(-1, 3))
            if np.ptp(points[:, 2]) > 0.5:
                raise InputError("a contour runs across slices", path=path, hint="export it on the image's own slices")
            k = round(float(points[:, 2].mean()))
            if not 0 <= k < slices:
                continue
            drawn += 1
            low = np.clip(np.floor(points[:, :2].min(0)).astype(int), 0, [columns - 1, rows - 1])
            high = np.clip(np.ceil(points[:, :2].max(0)).astype(int), 0, [columns - 1, rows - 1])
            i, j = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1), indexing="ij")
            inside = Polygon(points[:, :2]).contains_points(np.column_stack([i.ravel(), j.ravel()]))
            mask[low[0] : high[0] + 1, low[1] : high[1] + 1, k] ^= inside.reshape(i.shape)
        if drawn:
            name = names.get(int(roi.ReferencedROINumber), "")
            result[name] = result.get(name, np.zeros(grid.shape, dtype=bool)) | mask
    return result


def _segments(dataset: pydicom.Dataset, grid: Grid, path: Path) -> dict[str, np.ndarray]:
    names = {int(item.SegmentNumber): str(item.get("SegmentLabel") or "") for item in dataset.SegmentSequence}
    pixels = dataset.pixel_array.reshape(-1, int(dataset.Rows), int(dataset.Columns))
    kind = str(dataset.get("SegmentationType") or "BINARY")
    if kind == "FRACTIONAL":
        pixels = pixels >= int(dataset.MaximumFractionalValue) / 2
    if pixels.shape[1:] != (grid.shape[1], grid.shape[0]):
        raise InputError("has another matrix than its series", path=path, hint="resample it to the series")
    shared = dataset.SharedFunctionalGroupsSequence[0]
    result = {name: np.zeros(grid.shape, dtype=bool) for name in names.values()}
    corners = np.array([[0, 0], [grid.shape[0] - 1, 0], [0, grid.shape[1] - 1]], dtype=float)
    for frame, group in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(_group(group, shared, "PlanePositionSequence").ImagePositionPatient, dtype=float)
        direction = np.array(_group(group, shared, "PlaneOrientationSequence").ImageOrientationPatient, dtype=float)
        spacing = np.array(_group(group, shared, "PixelMeasuresSequence").PixelSpacing, dtype=float)
        # Three corners of the frame must fall on the grid's: that holds position, direction and spacing at once.
        points = position + corners[:, :1] * spacing[1] * direction[:3] + corners[:, 1:] * spacing[0] * direction[3:]
        index = grid.voxels(points)
        k = round(float(index[0, 2]))
        if not np.allclose(index, np.column_stack([corners, np.full(3, k)]), atol=0.1) or not 0 <= k < grid.shape[2]:
            raise InputError("a frame does not lie on the series' grid", path=path, hint="resample it to the series")
        if kind == "LABELMAP":
            for number, name in names.items():
                result[name][:, :, k] |= (frame == number).T
        else:
            number = int(_group(group, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
            result[names[number]][:, :, k] |= (frame > 0).T
    return result


def _group(frame: pydicom.Dataset, shared: pydicom.Dataset, keyword: str) -> pydicom.Dataset:
    return frame[keyword].value[0] if keyword in frame else shared[keyword].value[0]
