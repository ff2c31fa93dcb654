"""Class folders (ImageFolder): the folder that an image lies in is its class.

Above the class there may be a folder per split (``train/normal/1.png``) or per site (``north/normal/1.png``, where the
sites hold the same classes), below it one per patient. A table in the folder that names the images may add patients,
sites and class numbers.

With DICOM below the classes, every series (or projection) is a case, as ``layouts.dicom`` reads it; since a tree of
patients looks alike, this has to be asked for (``--layout classes``).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.manifest.finding_columns import find_finding_columns
from monai_transfer.manifest.layouts import dicom
from monai_transfer.manifest.layouts.base import (
    FolderContents,
    Options,
    RawCase,
    count,
    is_image,
    list_files,
    split_name,
    stem,
)
from monai_transfer.manifest.layouts.csv import find_table
from monai_transfer.manifest.layouts.pairs import is_mask_folder
from monai_transfer.manifest.masks import is_picture_of_numbers
from monai_transfer.manifest.table import parse_label

__all__ = ["detect", "read"]

GROUP = "folders"
OPTIONS = ("path_column", "series_description", "site_from")

_WRAPPERS = ("images", "image", "imgs", "img", "data")


def detect(folder: Path) -> float:
    """0.6 where the images lie in at least two folders, all equally deep; 0.3 where it is DICOM that does.

    0.4 where a table in the folder gives labels that are not these folders: it knows better. 0 where the folders are
    patients, with an image or two each.
    """
    if folder.is_dir() and dicom.detect(folder) and not any(is_image(path) for path in list_files(folder)):
        return 0.3 if sum(path.is_dir() for path in folder.iterdir()) > 1 else 0.0
    try:
        cases = _cases(folder)[0]
        classes = {case.label for case in cases} - {None}
        if len(classes) < 2 or _are_patients(len(classes), len(cases)):
            return 0.0
        return 0.6 if _table_agrees(folder, cases) else 0.4
    except InputError:
        return 0.0


def _are_patients(folders: int, images: int) -> bool:
    """Many folders with hardly an image each: a class of its own for each patient teaches nothing."""
    return images == folders > 3 or (folders > 10 and images < 3 * folders)


def _table_agrees(folder: Path, cases: list[RawCase]) -> bool:
    """Whether a table beside the folders, if it gives labels, gives one for each folder."""
    hit = find_table(folder, Options(files=folder))
    label_column = hit[0].column("label") if hit else None
    if hit is None:
        return True
    table, column = hit
    if label_column is None:
        return not find_finding_columns(table, (), [column])
    of = {case.images[0].name: str(case.label) for case in cases}
    pairs = {(row[label_column], of.get(Path(row[column]).name)) for row in table.rows}
    pairs = {(label, name) for label, name in pairs if label and name}
    return len({label for label, _ in pairs}) == len(pairs) == len({name for _, name in pairs})


def read(folder: Path, options: Options) -> FolderContents:
    """Every image with its folder as class.

    Raises:
        InputError: images lie at different depths, or the table contradicts the folders.
    """
    cases, notes = _cases(folder)
    if not cases and folder.is_dir() and dicom.detect(folder):
        return _dicom(folder, options)
    if not cases:
        hint = "put images into one folder per class, class/image.png"
        raise InputError("no images in class folders", path=folder, hint=hint)
    _refuse_masks(folder, cases)
    if options.site_from or options.series_description:
        hint = "name sites with --site or --table"
        raise InputError("--site-from and --series-description read DICOM headers", path=folder, hint=hint)
    found = FolderContents(cases, notes, texts={"task": "classification"})
    hit = find_table(folder, options)
    if hit is not None:
        table, column = hit
        found.table = (table.path, column)
        label_column = table.column("label", options.label_column)
        given: dict[str, Any] = {}
        for row in table.rows:
            name = Path(row[column])
            given[(name.parent / stem(name)).as_posix()] = parse_label(row[label_column]) if label_column else None
        found.labels = _numbers(cases, given, table.path)
        if found.labels:
            shown = ", ".join(f"{number} = {name}" for number, name in sorted(found.labels.items()))
            notes.append(f"{table.path.name}: class numbers taken from it: {shown}")
    return found


def _refuse_masks(folder: Path, cases: list[RawCase]) -> None:
    """Folders of masks are no class: neither by name nor, where two folders hold the same names, by what they hold."""
    by_class: dict[str, dict[str, Path]] = defaultdict(dict)
    for case in cases:
        by_class[str(case.label)][case.key] = case.images[0]
    hint = "name masks as their images (images/a.png, masks/a.png); or say --mask-suffix, --mask-ending or a --layout"
    for name, files in by_class.items():
        if is_mask_folder(name):
            fault = f"{name!r} would be a class, but it is the name of a folder of masks"
            raise InputError(fault, path=folder, hint=hint)
        for other, others in by_class.items():
            shared = sorted(set(files) & set(others)) if other != name else []
            if 2 * len(shared) > len(files) and any(is_picture_of_numbers(files[key]) for key in shared[:3]):
                alike = [is_picture_of_numbers(others[key]) for key in shared[:3]]
                if not any(alike) and all(is_picture_of_numbers(files[key]) for key in shared[:3]):
                    example = files[shared[0]].relative_to(folder)
                    fault = (
                        f"{example} holds few numbers and shares its name with an image in {other!r}: a mask, no class"
                    )
                    raise InputError(fault, path=folder, hint=hint)


def _numbers(cases: list[RawCase], given: dict[str, Any], path: Path) -> dict[int, str]:
    """Class folder by class number, where the table numbers every class and always in the same way."""
    pairs = {(given[case.place], str(case.label)) for case in cases if isinstance(given.get(case.place), int)}
    names = {int(number): name for number, name in pairs}
    if len(names) != len(pairs) or len(set(names.values())) != len(pairs):
        raise InputError("its labels contradict the class folders", path=path, hint="correct it, or use --layout csv")
    return names if len(names) == len({case.label for case in cases}) else {}


def _cases(folder: Path) -> tuple[list[RawCase], list[str]]:
    files = [path for path in list_files(folder) if is_image(path)]
    places = [path.relative_to(folder) for path in files]
    dirs = [tuple(part for part in place.parts[:-1] if part.lower() not in _WRAPPERS) for place in places]
    splits = [next((split_name(part) for part in parts if split_name(part)), None) for parts in dirs]
    dirs = [tuple(part for part in parts if split_name(part) is None) for parts in dirs]
    depths = {len(parts) for parts in dirs}
    if len(depths) > 1:
        raise InputError("images lie at different depths", path=folder, hint="put each image into its class folder")
    notes: list[str] = []
    depth = depths.pop() if depths else 0
    if depth == 0:
        return [], notes
    if depth > 2:
        raise InputError(
            "images lie too deep for class folders", path=folder, hint="use class/image or site/class/image"
        )
    below: dict[str, Counter[str]] = defaultdict(Counter)
    if depth == 2:
        for parts in dirs:
            below[parts[0]][parts[1]] += 1
    sites = depth == 2 and _are_sites(below)
    if depth == 2:
        what = "sites, the lower ones classes" if sites else "classes, the lower ones patients"
        notes.append(f"two levels of folders: the upper ones read as {what}")
    cases = []
    for path, place, parts, split in zip(files, places, dirs, splits, strict=True):
        case = RawCase([path], stem(path), (place.parent / stem(place)).as_posix(), label=parts[-1], split=split)
        if depth == 2 and sites:
            case.site = parts[0]
        elif depth == 2:
            case.label, case.patient = parts[0], parts[1]
        cases.append(case)
    other = sum(not is_image(path) and path.suffix.lower() not in (".csv", ".tsv") for path in list_files(folder))
    if other:
        notes.append(f"{count(other, 'file')} of another kind left out")
    return cases, notes


def _are_sites(below: dict[str, Counter[str]]) -> bool:
    """The same (at least two) names under every folder: those are the classes, and the folders above are sites.

    Unless most hold a single image: then they are patients or cases that are numbered anew under every class.
    """
    names = [set(group) for group in below.values()]
    alike = len(names) > 1 and len(names[0]) > 1 and all(group == names[0] for group in names)
    return alike and sum(map(Counter.total, below.values())) >= 2 * sum(map(len, names))


def _dicom(folder: Path, options: Options) -> FolderContents:
    found = dicom.read(folder, options, every=True)
    below: dict[str, Counter[str]] = defaultdict(Counter)
    places = []
    for case in found.cases:
        parts = [part for part in (case.origin or Path()).parts[:-1] if part.lower() not in _WRAPPERS]
        case.split = next((split_name(part) for part in parts if split_name(part)), None)
        parts = [part for part in parts if split_name(part) is None]
        if not parts:
            raise InputError("DICOM files lie outside the class folders", path=folder, hint="move them into one")
        below[parts[0]][parts[1] if len(parts) > 1 else ""] += 1
        places.append(parts)
    sites = _are_sites(below)
    for case, parts in zip(found.cases, places, strict=True):
        case.label = parts[1 if sites else 0]
        case.site = case.site or (parts[0] if sites else None)
    names = ", ".join(sorted({str(case.label) for case in found.cases}))
    found.notes.append(f"folders read as {'sites and below them ' if sites else ''}classes: {names}")
    found.texts["task"] = "classification"
    found.labels, found.drawn = {}, False
    return found
