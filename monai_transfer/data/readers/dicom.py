"""DICOM: a series folder, a single file, or a multi-frame file, as one volume; everything is verified from the headers
before a pixel is decoded."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileDataset

from monai_transfer.data.readers.base import FARTHEST, CheckedReader, Volume, check_memory, check_spacing, existing
from monai_transfer.data.readers.dicom_decode import read_pixels
from monai_transfer.data.readers.dicom_geometry import Plane, order_slices, volume_affine
from monai_transfer.data.readers.dicom_headers import check_one_series, list_files, read_headers
from monai_transfer.data.readers.dicom_pixels import check_pixels, number_of_frames
from monai_transfer.errors import InputError
from monai_transfer.library_logging import heard_from

__all__ = ["DicomReader"]

MODALITIES = frozenset(
    ("BI", "CR", "CT", "DX", "ES", "GM", "IO", "IVOCT", "IVUS", "MG", "MR", "NM", "OP", "OPT", "OT", "PT", "PX", "RF")
    + ("RG", "RTDOSE", "RTIMAGE", "SC", "SM", "US", "XA", "XC")
)
"""Kept in the metadata; any other text is dropped, since it might be anything."""

RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"


class DicomReader(CheckedReader):
    """Reads a folder that holds one series, or one (multi-frame) file; values, axes (x, y, z) and affine (RAS) equal
    MONAI's ``ITKReader`` for every sound series, with slice spacing taken from positions.

    Refused with an ``InputError``: mixed series, patients, studies, orientations, sizes or pixel spacings; scouts;
    several time points; duplicates; missing slices; uneven spacing; gantry tilt; files in the folder that are no
    slices; short, long or cut-off pixel data; transfer syntaxes that cannot be decoded (by name); films; non-images.
    No header text and no identifier enters the metadata.

    Args:
        max_memory: bytes (or ``"2GiB"``) that one image may take.
        spacing_limits: smallest and largest plausible voxel size in mm.
        series: chooses one of several series in a folder, by UID, number or a pattern on the description.

    >>> import tempfile
    >>> DicomReader().read_volume(tempfile.mkdtemp())
    Traceback (most recent call last):
    monai_transfer.errors.InputError: ...
    """

    def __init__(
        self,
        max_memory: int | str | None = None,
        spacing_limits: tuple[float, float] = (0.01, 50.0),
        series: str | None = None,
    ) -> None:
        super().__init__(max_memory)
        self.spacing_limits = (float(spacing_limits[0]), float(spacing_limits[1]))
        self.series = series

    def read_volume(self, path: str | Path) -> Volume:
        """Read a series folder or a file. Array: x, y, z[, 3 colours]; a lone slice keeps a z axis of length 1."""
        path = existing(path)
        try:
            # pydicom's warnings quote values, which may identify a patient
            with disable_value_validation(), warnings.catch_warnings(), heard_from({"pydicom": logging.CRITICAL}):
                warnings.simplefilter("ignore")
                headers = read_headers(list_files(path) if path.is_dir() else [path])
                if path.is_dir():
                    headers = check_one_series(headers, path, self.series)
                return self._read(headers, path)
        except InputError:
            raise
        except Exception as error:  # pydicom parses late, and damaged values raise many kinds
            raise InputError("broken DICOM header", path=path, hint="copy or export it again") from error

    def _read(self, headers: list[FileDataset], path: Path) -> Volume:
        files = [Path(str(header.filename)) for header in headers]
        values = sum(check_pixels(header, file) for header, file in zip(headers, files, strict=True))
        frames = [number_of_frames(header, file) for header, file in zip(headers, files, strict=True)]
        if max(frames) > 1 and len(headers) > 1:
            raise InputError("several multi-frame files in one folder", path=path, hint="name one of the files")
        # decoders may give 8 bytes a value, and LoadImage makes float32 beside them
        check_memory(12 * values, self.max_memory, path)
        header = headers[0]
        tilts = [abs(float(h.get("GantryDetectorTilt") or 0)) for h in headers]
        if max(tilts) > 0.5 and len(headers) > 1:
            raise InputError(
                f"gantry tilt of {max(tilts):g} degrees, which a plain volume cannot hold",
                path=path,
                hint="resample it with a tool that corrects gantry tilt",
            )
        planes = _planes(headers, frames[0], path)
        if planes is None:
            order, affine = [0], _flat_affine(header, path)
        else:
            names = [file.name for file in files] if frames[0] == 1 else [f"frame {n + 1}" for n in range(frames[0])]
            order, distance = order_slices(planes, names, path)
            _check_count(headers, order, distance, path)
            if distance is None:  # a lone slice: nothing to measure between
                distance = abs(float(header.get("SpacingBetweenSlices") or 1.0))
            affine = volume_affine(planes[order[0]], distance)
        if max(frames) > 1:
            array = read_pixels(header, files[0])[order]
        else:
            array = np.concatenate([read_pixels(headers[n], files[n]) for n in order])
        array = np.swapaxes(array, 0, 2)  # z, y, x -> x, y, z
        shape = array.shape[:3]
        check_spacing(np.linalg.norm(affine[:3, :3], axis=0).tolist(), shape, self.spacing_limits, path)
        modality = str(header.get("Modality", ""))
        meta = {
            "modality": modality if modality in MODALITIES else "",
            "photometric": str(header.PhotometricInterpretation),
        }
        return Volume(array, affine, channel_last=array.ndim == 4, meta=meta)


def _planes(headers: list[FileDataset], frames: int, path: Path) -> list[Plane] | None:
    """The place of every slice or frame; ``None`` for a lone image without one (X-ray, photograph)."""
    header = headers[0]
    if frames == 1 and "PerFrameFunctionalGroupsSequence" not in header:
        located = [h for h in headers if h.get("ImagePositionPatient") and h.get("ImageOrientationPatient")]
        if not located and len(headers) == 1:
            return None
        if len(located) < len(headers):
            raise InputError(
                f"{len(headers) - len(located)} of {len(headers)} slices have no position or orientation",
                path=path,
                hint="fetch the series again; without positions the order of slices is a guess",
            )
        return [
            Plane(
                _vector(h, "ImagePositionPatient", 3, path),
                _vector(h, "ImageOrientationPatient", 6, path),
                _pixel_spacing(h, path),
            )
            for h in headers
        ]
    if "PerFrameFunctionalGroupsSequence" in header:
        groups = header.PerFrameFunctionalGroupsSequence
        if len(groups) != frames:
            raise InputError(
                f"{len(groups)} frame descriptions for {frames} frames", path=path, hint="export the image again"
            )
        shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
        return [_frame_plane(group, shared[0], path) for group in groups]
    offsets = header.get("GridFrameOffsetVector")
    if header.get("SOPClassUID") == RT_DOSE and offsets is not None and len(offsets) == frames:
        position, orientation = (
            _vector(header, "ImagePositionPatient", 3, path),
            _vector(header, "ImageOrientationPatient", 6, path),
        )
        plane = Plane(position, orientation, _pixel_spacing(header, path))
        return [Plane(position + plane.normal * float(z), orientation, plane.pixel_spacing) for z in offsets]
    raise InputError(
        f"{frames} frames without positions (a film?), so they are no volume",
        path=path,
        hint="export the frames as single images, or as an enhanced multi-frame image",
    )


def _frame_plane(group: Dataset, shared: Dataset, path: Path) -> Plane:
    def find(sequence: str) -> Dataset:
        items = group.get(sequence) or shared.get(sequence)
        if not items:
            raise InputError(f"frames without {sequence}", path=path, hint="export it again")
        return items[0]

    return Plane(
        _vector(find("PlanePositionSequence"), "ImagePositionPatient", 3, path),
        _vector(find("PlaneOrientationSequence"), "ImageOrientationPatient", 6, path),
        _positive(_vector(find("PixelMeasuresSequence"), "PixelSpacing", 2, path), path),
    )


def _vector(dataset: Dataset, keyword: str, length: int, path: Path) -> np.ndarray:
    vector = np.array([float(v) for v in dataset.get(keyword) or []])
    if vector.shape != (length,) or not np.all(np.isfinite(vector)):
        raise InputError(f"{keyword} is not {length} numbers", path=path, hint="export it again")
    if np.abs(vector).max(initial=0) > FARTHEST:
        raise InputError(f"{keyword} holds {np.abs(vector).max():.3g} mm", path=path, hint="export it again")
    return vector


def _positive(spacing: np.ndarray, path: Path) -> np.ndarray:
    if np.any(spacing <= 0):
        raise InputError("the pixel spacing is not positive", path=path, hint="export it again")
    return spacing


def _pixel_spacing(header: Dataset, path: Path) -> np.ndarray:
    """Rows' and columns' distance in mm; that of the detector where the patient's is unknown, else 1."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        if header.get(keyword):
            return _positive(_vector(header, keyword, 2, path), path)
    if header.get("PixelAspectRatio"):  # no millimetres, but at least the shape
        ratio = _positive(_vector(header, "PixelAspectRatio", 2, path), path)
        return ratio / ratio[1]
    return np.ones(2)


def _flat_affine(header: Dataset, path: Path) -> np.ndarray:
    spacing = _pixel_spacing(header, path)
    return np.diag([-spacing[1], -spacing[0], 1.0, 1.0])


def _check_count(headers: list[FileDataset], order: list[int], distance: float | None, path: Path) -> None:
    """What gaps cannot show: slices lost at an end, or every second one; believe the scanner's numbers for these."""
    if len(headers) < 2 or distance is None:
        return
    counts = {int(h.get("NumberOfSlices") or 0) for h in headers}
    if len(counts) == 1 and (due := counts.pop()) > len(headers):
        raise InputError(
            f"{len(headers)} slices where the scanner made {due} (NumberOfSlices)",
            path=path,
            hint="fetch the series again",
        )
    numbers = np.array([int(headers[n].get("InstanceNumber") or 0) for n in order])
    steps = set(np.abs(np.diff(numbers)).tolist())
    stated = float(headers[0].get("SpacingBetweenSlices") or headers[0].get("SliceThickness") or 0)
    if (
        len(headers) > 2
        and len(steps) == 1
        and (step := steps.pop()) > 1
        and abs(stated * step - distance) < 0.01 * distance
    ):
        raise InputError(
            f"only one slice in {step} is there (InstanceNumber goes by {step}, slices are {distance:g} mm apart where "
            f"the header states {stated:g} mm)",
            path=path,
            hint="fetch the series again",
        )
