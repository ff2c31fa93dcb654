"""The headers of a DICOM series, read with pydicom before any pixel: which files, which series, are they one image?

Nothing here or in the errors shows a patient's name, id or dates: a fault names files and tags, never identifiers.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError

from monai_transfer.data.readers.base import existing
from monai_transfer.errors import InputError

__all__ = ["list_files", "read_headers", "check_one_series", "is_dicom"]

NOT_SLICES = re.compile(
    r"(?i)^(\..*|.*\.(txt|rtf|docx?|xlsx?|json|csv|tsv|xml|html?|md|pdf|log|sh|py|jpe?g|png|gif|bmp|zip|exe|dll|bat|inf|ini"
    r"|lnk)|dicomdir|license|readme|version|thumbs\.db)$"
)
"""Files that may lie beside slices. Anything else in a series folder must be a readable slice, or a slice is lost."""

SAME = {
    "PatientID": "patients (PatientID)",
    "PatientName": "patients (PatientName)",
    "PatientBirthDate": "patients (PatientBirthDate)",
    "StudyInstanceUID": "studies",
    "FrameOfReferenceUID": "frames of reference",
    "Modality": "modalities",
    "SOPClassUID": "kinds of image (SOPClassUID)",
    "Rows": "slice heights (Rows)",
    "Columns": "slice widths (Columns)",
    "PhotometricInterpretation": "values of PhotometricInterpretation",
    "SamplesPerPixel": "values of SamplesPerPixel",
    "BitsAllocated": "values of BitsAllocated",
    "PixelRepresentation": "values of PixelRepresentation",
    "ConvolutionKernel": "reconstruction kernels",
    "EchoNumbers": "echoes",
    "TemporalPositionIdentifier": "time points",
    "EchoTime": "echo times",
    "DiffusionBValue": "diffusion weightings",
    "KVP": "tube voltages",
    "Units": "units",
    "PatientPosition": "positions of the patient",
    "PatientSex": "patients (PatientSex)",
    "Manufacturer": "manufacturers",
    "MagneticFieldStrength": "field strengths",
}
"""What every slice of one image has in common, the gravest first; positions and spacing are dicom_geometry's."""


def is_dicom(start: bytes) -> bool:
    """Whether a file's first 132 or more bytes are those of a DICOM file with its preamble.

    Args:
        start: of a file, 132 bytes or more.

    >>> is_dicom(bytes(128) + b"DICM"), is_dicom(b"NRRD0004")
    (True, False)
    """
    return start[128:132] == b"DICM"


def list_files(folder: Path) -> list[Path]:
    """The files of a series folder, sorted by name.

    Args:
        folder: that holds the series; what lies in its subfolders is not looked for.

    Raises:
        InputError: there are none.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("2.dcm", "1.dcm", "DICOMDIR"):  # an index is no slice
    ...     (folder / name).touch()
    >>> [path.name for path in list_files(folder)]
    ['1.dcm', '2.dcm']
    """
    files = sorted(p for p in folder.iterdir() if p.is_file() and not NOT_SLICES.match(p.name))
    if not files:
        inside = sorted(p.name for p in folder.iterdir() if p.is_dir())
        hint = f"name one of its {len(inside)} subfolders" if inside else None
        raise InputError("the folder holds no DICOM file", path=folder, hint=hint)
    return files


def read_headers(files: Iterable[Path]) -> list[FileDataset]:
    """Each file's header with its pixel data left unread; the file is kept as ``dataset.filename``.

    Args:
        files: of one series or more.

    Raises:
        InputError: a file is no DICOM file, or damaged.

    >>> import tempfile
    >>> import numpy as np
    >>> from monai_transfer.data.phantom.sites import SITES
    >>> from monai_transfer.data.phantom.write import write_dicom
    >>> folder, voxels = Path(tempfile.mkdtemp()) / "series", np.zeros((4, 6, 2), np.int16)
    >>> write_dicom(folder, voxels, np.diag([1, 1, 3, 1.0]), patient_id="P1", protocol=SITES["site_a"].protocol)
    >>> headers = read_headers(list_files(folder))
    >>> [(header.Rows, header.Columns, float(header.SliceThickness)) for header in headers]
    [(6, 4, 3.0), (6, 4, 3.0)]
    """
    return [_read_header(existing(path)) for path in files]


def _read_header(path: Path) -> FileDataset:
    with path.open("rb") as stream:
        if not is_dicom(stream.read(132)):
            raise InputError(
                "not a DICOM file (no DICM mark at byte 128)",
                path=path,
                hint="if it is a slice, it is damaged: copy it again; if not, move it out of the series folder",
            )
    try:
        # Large elements stay on disk until they are asked for, so this is cheap and yet finds where pixels start.
        dataset = pydicom.dcmread(path, defer_size=2048)
        for keyword in ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", *SAME):
            dataset.get(keyword)  # values are parsed when asked for: find broken ones now
    except (InvalidDicomError, EOFError, OSError) as error:
        raise InputError(f"cannot be read as DICOM ({_first_line(error)})", path=path, hint="copy it again") from error
    except Exception as error:  # pydicom raises many kinds for damaged values
        raise InputError(f"broken DICOM header ({_first_line(error)})", path=path, hint="export it again") from error
    return dataset


def _first_line(error: Exception) -> str:
    """What an error says, without values that may identify a patient."""
    if isinstance(error, (EOFError, struct.error)):
        return "it ends too early"
    text = " ".join(str(error).split()) if isinstance(error, (OSError, InvalidDicomError)) else ""
    return (text or type(error).__name__)[:120]


def check_one_series(headers: list[FileDataset], folder: Path, series: str | None = None) -> list[FileDataset]:
    """The headers of the one series in ``folder``; ``series`` chooses by UID, number or a pattern on the description.

    Args:
        headers: of ``read_headers``.
        folder: named in the error.
        series: which one, by UID, number or a pattern on the description; None: the only one.

    Raises:
        InputError: several series, patients, studies, orientations or formats are mixed.

    A folder with two slices of one series and one of another:

    >>> headers = [FileDataset(f"{n}.dcm", {}) for n in (1, 2, 3)]
    >>> for header, number in zip(headers, (1, 1, 2)):
    ...     header.SeriesInstanceUID, header.SeriesNumber, header.PatientID = f"1.2.{number}", number, "P1"
    >>> len(check_one_series(headers, Path("case"), series="1"))
    2
    >>> try:
    ...     check_one_series(headers, Path("case"))
    ... except InputError as error:
    ...     print(error.fault)
    holds 2 DICOM series (number 1 with 2 files, number 2 with 1 files)
    """
    by_series: dict[str, list[FileDataset]] = {}
    for header in headers:
        if not header.get("SeriesInstanceUID"):
            raise InputError(
                "belongs to no series (no SeriesInstanceUID; is it cut off?)",
                path=str(header.filename),
                hint="copy it again, or move it out of the series folder",
            )
        by_series.setdefault(str(header.SeriesInstanceUID), []).append(header)
    if series is not None:
        by_series = {uid: group for uid, group in by_series.items() if _matches(group[0], series)}
        if not by_series:
            raise InputError(
                f"no series matches {series!r}",
                path=folder,
                hint="look at the descriptions in the folder, or leave series out",
            )
    if len(by_series) > 1:
        patients = {str(h.get("PatientID", "")) for h in headers}
        of_patients = f" of {len(patients)} patients" if len(patients) > 1 else ""
        found = ", ".join(f"number {g[0].get('SeriesNumber', '?')} with {len(g)} files" for g in by_series.values())
        raise InputError(
            f"holds {len(by_series)} DICOM series{of_patients} ({found})",
            path=folder,
            hint="put each series into a folder of its own, or choose one with series=",
        )
    headers = next(iter(by_series.values()))
    for keyword, what in SAME.items():
        texts = [_text(h.get(keyword)) for h in headers]
        values = Counter(texts)
        if len(values) > 1:
            odd = min(values, key=lambda v: values[v])
            file = headers[texts.index(odd)].filename
            raise InputError(
                f"slices of {len(values)} different {what} in one series, e.g. in {Path(str(file)).name}",
                path=folder,
                hint="separate them; they are not one image",
            )
    scouts = [h for h in headers if "LOCALIZER" in _words(h, "ImageType")]
    if 0 < len(scouts) < len(headers):
        raise InputError(
            f"a scout (LOCALIZER) among the slices: {Path(str(scouts[0].filename)).name}",
            path=folder,
            hint="move it out of the series folder",
        )
    _check_days(headers, folder)
    return headers


def _text(value: object) -> str:
    """A value to compare; numbers as numbers, since ``1.5`` may be written ``1.50``."""
    return f"{float(value):.4g}" if isinstance(value, (int, float)) else str(value or "").strip()


def _words(header: FileDataset, keyword: str) -> list[str]:
    value = header.get(keyword)
    return [value] if isinstance(value, str) else [str(v) for v in value or []]


def _check_days(headers: list[FileDataset], folder: Path) -> None:
    """A scan may run over midnight; slices more than a day apart are of two visits."""
    for keyword in ("AcquisitionDate", "ContentDate", "SeriesDate"):
        texts = {str(h.get(keyword) or "") for h in headers}
        days = []
        for text in texts:
            with contextlib.suppress(ValueError):
                days.append(datetime.strptime(text, "%Y%m%d"))
        if days and (max(days) - min(days)).days > 1:
            raise InputError(
                f"slices acquired {(max(days) - min(days)).days} days apart ({keyword})",
                path=folder,
                hint="put each time point into a folder of its own",
            )


def _matches(header: FileDataset, series: str) -> bool:
    if series in (str(header.get("SeriesInstanceUID", "")), str(header.get("SeriesNumber", ""))):
        return True
    return re.search(series, str(header.get("SeriesDescription", "")), re.IGNORECASE) is not None
