"""DICOM trees of many patients, studies and series, with masks beside them or as DICOM SEG and RTSTRUCT.

Which series becomes a case: those that a label belongs to; else, per study, the one with the most slices that is no
localizer (with ``options.series_description``, among those whose description holds that text). A projection (CR, DX,
MG) or multi-frame file is an image of its own.

Labels: a SEG or RTSTRUCT belongs to the series that it refers to; a volume file (NIfTI, NRRD, MHA) to the series whose
folder has its name in the path, else to the only series under the same folder.

Patients are HMACs of the patient id, case names HMACs of the series UID, dates become days since the first. Where a
path would give a patient away, or a series shares its folder with another or with a mask, a copy without identifying
elements stands in.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import itk
import nibabel
import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.manifest.contours import Drawing
from monai_transfer.manifest.dicom_copies import copy_series
from monai_transfer.manifest.dicom_grid import Grid
from monai_transfer.manifest.dicom_headers import Series, check_keywords, gather, has_magic
from monai_transfer.manifest.dicom_masks import read_structures, referenced_series, structure_names
from monai_transfer.manifest.itk_headers import check_itk_header, itk_format
from monai_transfer.manifest.layouts.base import (
    FolderContents,
    Options,
    RawCase,
    count,
    derived_path,
    is_image,
    list_files,
    stem,
)
from monai_transfer.manifest.naming import slug
from monai_transfer.manifest.pseudonyms import Pseudonyms
from monai_transfer.manifest.structures import Structures

__all__ = ["detect", "read"]

OPTIONS = ("nested", "overlaps", "series_description", "site_from")
PSEUDONYMS = True

_VOLUMES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
_LOOKED_AT = 50


def detect(folder: Path) -> float:
    """0.85 where one of the first files is DICOM."""
    if not folder.is_dir():
        return 0.0
    others = (path for path in list_files(folder) if not is_image(path))
    return 0.85 if any(has_magic(path) for path in itertools.islice(others, _LOOKED_AT)) else 0.0


def read(folder: Path, options: Options, every: bool = False) -> FolderContents:
    """One case per chosen series, or (``every``) per series that is no localizer.

    Raises:
        InputError: no series, no such description or header keyword, or labels that fit no structure.
    """
    check_keywords(options.site_from)
    files = list(list_files(folder))
    series, notes = gather((path for path in files if not is_image(path)), options.site_from)
    found = FolderContents([], notes)
    images = [one for one in series if not one.is_label]
    if not images:
        raise InputError(
            "no DICOM image series in it", path=folder, hint="give the folder that holds the images, or say --layout"
        )
    objects = _objects([one for one in series if one.is_label], images, notes)
    volumes = _volumes([path for path in files if path.name.lower().endswith(_VOLUMES)], images, folder, notes)
    labelled = {id(one) for one in images if not one.is_localizer} if every else {*objects, *volumes}
    chosen = _choose(images, labelled, options, folder, notes)
    pseudonyms = Pseudonyms()
    dates = [one.date for one in chosen if one.date]
    drawn = [objects[id(one)] for one in chosen if id(one) in objects]
    names = [[name for path in paths for name in structure_names(path)] for paths in drawn]
    structures = Structures.of(names, options.labels, options.overlaps) if drawn else None
    per_folder = Counter(parent for one in series for parent in {path.parent for path in one.files})
    per_folder.update(path.parent for path in files if is_image(path))  # a mask among the slices
    copied = 0
    for one in chosen:
        patient = "p" + pseudonyms(one.patient)
        identity = one.uid if len(one.files) > 1 else f"{one.uid} {one.header.get('SOPInstanceUID')}"
        name = f"{patient}_{pseudonyms(identity, 'series', 8)}"
        try:
            image, was_copied = _image(one, per_folder, options.files / "series" / name, pseudonyms)
        except InputError as error:
            notes.append(f"{name}: left out, {error.fault}")
            continue
        copied += was_copied
        case = RawCase([image], key=name, place=name, patient=patient, site=_site(one, options.site_from))
        identities = ("PatientID", "StudyInstanceUID", "AccessionNumber", "SeriesInstanceUID")
        case.origin = one.files[0].relative_to(folder)
        case.aliases = [str(one.header.get(key)) for key in identities if one.header.get(key)]
        case.acquired = float((one.date - min(dates)).days) if one.date else None
        try:
            if id(one) in objects and structures:
                target = options.files / "masks" / f"{name}.nii.gz"
                grid = Grid.read(one.files)
                structures.add(_drawings(objects[id(one)], grid, options.nested), grid.affine, target)
                case.label = target
            elif id(one) in volumes:
                case.label = _plain_mask(volumes[id(one)], one, options.files / "masks" / f"{name}.nii.gz")
        except InputError as error:
            # One bad series must not hide the others; its case goes on without a label, and this is said.
            notes.append(f"{name}: label left out, {error.fault}")
        found.cases.append(case)
    if copied:
        notes.append(f"{copied} series copied without identifying elements to {options.files / 'series'}")
    if structures:
        notes.extend(structures.finish())
        found.labels, found.regions = structures.labels, structures.regions
        found.drawn = not volumes
    if objects or volumes:
        found.texts["task"] = "segmentation"
    found.texts["modality"] = ", ".join(sorted({one.modality for one in chosen if one.modality}))
    return found


def _drawings(paths: Sequence[Path], grid: Grid, nested: str) -> dict[str, Drawing]:
    """The structures of all objects of a series; those of one name together."""
    drawn: dict[str, Drawing] = {}
    for path in paths:
        for name, one in read_structures(path, grid, nested).items():
            drawn[name] = drawn[name].join(one) if name in drawn else one
    return drawn


def _objects(labels: Sequence[Series], images: Sequence[Series], notes: list[str]) -> dict[int, list[Path]]:
    """SEG and RTSTRUCT files by the series (its ``id``) that they refer to."""
    by_uid = {one.uid: one for one in images}
    frames: dict[str, list[Series]] = defaultdict(list)
    for one in images:
        frames[str(one.header.get("FrameOfReferenceUID"))].append(one)
    result: dict[int, list[Path]] = defaultdict(list)
    lost = 0
    for label in labels:
        for path in label.files:
            targets = [by_uid[uid] for uid in sorted(referenced_series(path)) if uid in by_uid]
            if not targets:  # without a reference, a series alone in its frame of reference must be meant
                same = frames[str(label.header.get("FrameOfReferenceUID"))]
                targets = same if len(same) == 1 else []
            lost += not targets
            for target in targets:
                result[id(target)].append(path)
    if lost:
        notes.append(f"{count(lost, 'DICOM label')} left out: the series that they belong to is not here")
    return dict(result)


def _volumes(paths: Sequence[Path], images: Sequence[Series], folder: Path, notes: list[str]) -> dict[int, Path]:
    """Mask files by the series (its ``id``) that they lie beside or are called after."""
    result: dict[int, Path] = {}
    lost = []
    for path in paths:
        named = [one for one in images if stem(path) in one.files[0].relative_to(folder).parts]
        if not named:
            parents = [parent for parent in path.parents if parent.is_relative_to(folder)]
            below = ([one for one in images if one.files[0].is_relative_to(parent)] for parent in parents)
            named = next((group for group in below if group), [])
        if len(named) == 1 and id(named[0]) not in result:
            result[id(named[0])] = path
        else:
            lost.append(path)
    if lost:
        notes.append(f"{count(len(lost), 'mask file')} left out: not clear which series they belong to")
    return result


def _choose(
    images: Sequence[Series], labelled: set[int], options: Options, folder: Path, notes: list[str]
) -> list[Series]:
    wanted = options.series_description
    if wanted is not None:
        named = [one for one in images if wanted.lower() in str(one.header.get("SeriesDescription") or "").lower()]
        if not named:
            raise InputError(f"no series description holds {wanted!r}", path=folder, hint=_descriptions(images))
        images, before = named, len(images)
        notes.append(f"{before - len(named)} series without {wanted!r} in the description, left out")
    studies: dict[tuple[str, str], list[Series]] = defaultdict(list)
    for one in images:
        studies[one.patient, str(one.header.get("StudyInstanceUID"))].append(one)
    chosen: list[Series] = []
    for group in studies.values():
        with_label = [one for one in group if id(one) in labelled]
        stacks = [one for one in group if not one.is_localizer] or group
        most = max(len(one.files) for one in stacks)
        # Files that are images of their own (projections) are all taken; of stacks the first of the longest.
        longest = [one for one in stacks if len(one.files) == most]
        chosen += with_label or (longest[:1] if most > 1 else longest)
    if len(chosen) < len(images):
        left = len(images) - len(chosen)
        notes.append(
            f"{left} series left out: not labelled, localizers or not the longest of a study; "
            f"--series-description chooses otherwise ({_descriptions(images)})"
        )
    return chosen


def _descriptions(images: Sequence[Series]) -> str:
    """Descriptions that several patients share: a text that one alone has may say who it is."""
    patients: dict[str, set[str]] = defaultdict(set)
    for one in images:
        patients[str(one.header.get("SeriesDescription") or "").strip()].add(one.patient)
    shared = sorted((text for text in patients if text and len(patients[text]) > 1), key=lambda t: -len(patients[t]))
    return f"here are: {', '.join(shared[:8])}" if shared else "no description is shared by two patients"


def _site(series: Series, keywords: Sequence[str]) -> str | None:
    if not keywords:
        return None
    values = []
    for keyword in keywords:
        value = series.header.get(keyword)
        texts = [value] if isinstance(value, (str, int, float)) or not hasattr(value, "__iter__") else list(value)
        values.append("-".join(str(text).strip() for text in texts if text not in (None, "")) or "unknown")
    return slug("_".join(values))


def _image(series: Series, per_folder: Counter[Path], target: Path, pseudonyms: Pseudonyms) -> tuple[Path, bool]:
    """The path that the manifest names: the series' own folder or file, or a copy's."""
    parents = {path.parent for path in series.files}
    alone = len(parents) == 1 and per_folder[next(iter(parents))] == 1
    single = len(series.files) == 1
    path = series.files[0] if single else series.files[0].parent
    if (alone or single) and not series.gives_away(path):
        return path, False
    copies = copy_series(series.files, target, pseudonyms)
    return (copies[0] if single else target), True


def _plain_mask(path: Path, series: Series, target: Path) -> Path:
    """A mask's own path, or (where that gives the patient away) a copy with nothing but voxels and geometry."""
    if not series.gives_away(path):
        return path
    try:
        if path.name.lower().endswith((".nii", ".nii.gz")):
            source = nibabel.load(path)
            data, affine = np.asanyarray(source.dataobj), source.affine
        else:
            with path.open("rb") as stream:
                if itk_format(stream.read(64)):
                    check_itk_header(path)
            image = itk.imread(str(path))
            data = itk.array_from_image(image).T
            affine = np.eye(4)
            affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.asarray(image.GetSpacing())
            affine[:3, 3] = np.asarray(image.GetOrigin())
            affine = np.diag([-1, -1, 1, 1]) @ affine
        with derived_path(target) as temporary:
            nibabel.save(nibabel.Nifti1Image(data, affine), temporary)
    except Exception as error:  # each library has its own
        raise InputError(f"mask cannot be read ({error})", hint="export it again") from None
    return target
