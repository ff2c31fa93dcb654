"""DICOM headers of a folder, gathered into series. Nothing that names a patient leaves this module but to be hashed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword

from monai_transfer.errors import InputError
from monai_transfer.manifest.checks import closest

__all__ = ["Series", "check_keywords", "gather", "has_magic"]

_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate"),
    *("AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality"),
    *("ImageType", "AcquisitionDate", "SeriesDate", "StudyDate", "NumberOfFrames", "FrameOfReferenceUID"),
)
_STACKED = ("CT", "MR", "PT", "NM")
_LABELS = ("SEG", "RTSTRUCT")
_NOT_IMAGES = ("SR", "PR", "KO", "REG", "FID", "RTDOSE", "RTPLAN", "RTRECORD", "ECG", "HD", "AU", "DOC", "PLAN", "RWV")
_IDENTIFYING = ("PN", "DA", "TM", "DT", "UI")


@dataclass
class Series:
    """The files of one series (or one file that is an image of its own), and what its first header says.

    Attributes:
        files: paths, sorted.
        header: the first file's header, without pixels; holds identifiers, so never written or shown.
    """

    files: list[Path]
    header: pydicom.Dataset
    uid: str = field(default="")

    @property
    def modality(self) -> str:
        """DICOM modality, or an empty text."""
        return str(self.header.get("Modality") or "")

    @property
    def is_label(self) -> bool:
        """Whether it is a segmentation or a structure set."""
        return self.modality in _LABELS

    @property
    def is_localizer(self) -> bool:
        """Whether it is a scout."""
        return any("LOCALIZER" in str(word).upper() for word in self.header.get("ImageType") or [])

    @property
    def patient(self) -> str:
        """What tells patients apart: id and issuer, or the study where there is no id."""
        identity = str(self.header.get("PatientID") or "").strip()
        if not identity:
            return f"study {self.header.get('StudyInstanceUID')}"
        return f"{identity}\0{self.header.get('IssuerOfPatientID') or ''}"

    @property
    def date(self) -> datetime | None:
        """Date of acquisition, of series or of study."""
        for keyword in ("AcquisitionDate", "SeriesDate", "StudyDate"):
            try:
                return datetime.strptime(str(self.header.get(keyword) or ""), "%Y%m%d")
            except ValueError:
                continue
        return None

    def identifiers(self) -> list[str]:
        """Texts, in lower case, that would give the patient away in a path."""
        name = str(self.header.get("PatientName") or "")
        parts = [part for piece in name.replace("=", "^").split("^") for part in (piece, *piece.split())]
        keywords = ("PatientID", "PatientBirthDate", "AccessionNumber")
        texts = [str(self.header.get(keyword) or "") for keyword in keywords] + parts
        return sorted({text.strip().lower() for text in texts if len(text.strip()) >= 3})

    def gives_away(self, path: Path) -> bool:
        """Whether a path holds one of the patient's identifiers."""
        lowered = str(path).lower()
        return any(text in lowered for text in self.identifiers())


def has_magic(path: Path) -> bool:
    """Whether a file begins as DICOM files do (``DICM`` after 128 bytes)."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def check_keywords(keywords: Sequence[str]) -> None:
    """Hold that header keywords may make up a site.

    Raises:
        InputError: no such keyword, or one that would identify a patient.
    """
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise InputError(f"--site-from: no DICOM tag is called {keyword!r}", hint=closest(keyword, keyword_dict))
        if tag >> 16 == 0x0010 or dictionary_VR(tag) in _IDENTIFYING:
            hint = "use what tells the scanner, e.g. Manufacturer,ManufacturerModelName,MagneticFieldStrength"
            raise InputError(f"--site-from: {keyword} would identify patients", hint=hint)


def gather(paths: Iterable[Path], keywords: Sequence[str] = ()) -> tuple[list[Series], list[str]]:
    """Read the headers of files and gather them into series, sorted by study, series number and UID.

    Stacks (CT, MR, PET) are one series for all their files; a projection or multi-frame file is an image of its own.

    Args:
        paths: files that may be DICOM.
        keywords: header keywords to read besides those needed here.

    Returns:
        the series, and a note for each kind of file that was left out.
    """
    groups: dict[tuple[str, ...], Series] = {}
    left: dict[str, int] = {}
    for path in paths:
        if not has_magic(path):
            left["no DICOM"] = left.get("no DICOM", 0) + 1
            continue
        try:
            with pydicom.config.disable_value_validation():
                header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*_TAGS, *keywords])
                for element in header:  # decoded here, where a broken value is caught
                    str(element.value)
            uid = str(header.get("SeriesInstanceUID") or "")
            modality = str(header.get("Modality") or "")
        except Exception:  # pydicom raises many kinds for broken headers
            left["DICOM with an unreadable header"] = left.get("DICOM with an unreadable header", 0) + 1
            continue
        if modality in _NOT_IMAGES or not uid:
            kind = f"DICOM without pixels to learn from ({modality or 'no series'})"
            left[kind] = left.get(kind, 0) + 1
            continue
        stacked = modality in _STACKED and int(header.get("NumberOfFrames") or 1) == 1
        key = (uid,) if stacked else (uid, str(header.get("SOPInstanceUID") or path))
        if key in groups:
            groups[key].files.append(path)
        else:
            groups[key] = Series([path], header, uid)
    series = sorted(groups.values(), key=_order)
    for one in series:
        one.files.sort()
    return series, [f"{n} file{'s' if n > 1 else ''} left out: {kind}" for kind, n in sorted(left.items())]


def _order(series: Series) -> tuple[Any, ...]:
    number = series.header.get("SeriesNumber")
    study = str(series.header.get("StudyInstanceUID"))
    return series.patient, study, int(number) if number is not None else 0, series.uid, os.fspath(series.files[0])
