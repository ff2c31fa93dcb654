"""Image/mask folder pairs: ``images/`` beside ``masks/`` (or the like), in one place or in several subfolders.

Where several subfolders hold such pairs, each is a site, unless they are called train, val and test. A mask belongs to
the image of the same name; failing that, of the same name without words like ``_mask`` or ``_seg``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from monai_transfer.errors import InputError
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

__all__ = ["detect", "read"]

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "volumes", "scans")
# The more telling names come first: retinal sets hold `mask` (field of view) beside `1st_manual` (vessels).
MASK_FOLDERS = (
    *("1st_manual", "manual", "groundtruth", "ground_truth", "gt", "annotations", "segmentations", "segmentation"),
    *("segs", "seg", "labels", "label", "masks", "mask"),
)
_AFFIX = re.compile(
    r"(^(image|img|mask|seg|label|gt)[_-])|([_-]?(image|img|mask|masks|seg|segmentation|label|labels|gt|groundtruth"
    r"|annotation|manual|training|test|bin|0000)\d*$)",
    re.IGNORECASE,
)
_DEPTH = 3


def detect(folder: Path) -> float:
    """0.9 where a pair of folders with images in both is found."""
    return 0.9 if any(_images(image) and _images(mask) for image, mask in _roots(folder)) else 0.0


def read(folder: Path, options: Options) -> FolderContents:
    """Every image with its mask; an image without one is unlabelled, a mask without an image is left out.

    Raises:
        InputError: no mask fits any image, or two masks fit the same image.
    """
    found = FolderContents([], texts={"task": "segmentation"})
    roots = _roots(folder)
    filled = [(image, mask) for image, mask in roots if _images(image) and _images(mask)]
    for image, mask in roots:
        if (image, mask) not in filled:
            found.notes.append(f"{image.parent.relative_to(folder)}: no pairs of image files in it, left out")
    several = len(filled) > 1
    for image, mask in filled:
        place = image.parent.relative_to(folder)
        parts = [part for part in place.parts if split_name(part) is None]
        split = next((split_name(part) for part in place.parts if split_name(part)), None)
        cases = _pair(image, mask, folder, found.notes)
        for case in cases:
            case.split = case.split or split
            if several:
                case.site = "_".join(parts) or None
                # The same name in several subfolders is most likely the same patient in several modalities.
                case.patient = case.key
        found.cases.extend(cases)
    if several:
        sites = ", ".join(sorted({str(case.site) for case in found.cases if case.site}))
        found.notes.append(
            f"several pairs of folders, taken as sites: {sites}" if sites else "several pairs of folders"
        )
        shared = len(found.cases) - len({case.key for case in found.cases})
        if shared:
            found.notes.append(f"{count(shared, 'name')} seen in more than one of them: taken as the same patient")
    if not any(case.label is not None for case in found.cases):
        raise InputError("no mask has the name of an image", path=folder, hint="give every mask the name of its image")
    return found


def _roots(folder: Path) -> list[tuple[Path, Path]]:
    roots = []
    for where, folders, _ in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        depth = len(Path(where).relative_to(folder).parts)
        lowered = {name.lower(): name for name in folders}
        image = next((lowered[name] for name in IMAGE_FOLDERS if name in lowered), None)
        mask = next((lowered[name] for name in MASK_FOLDERS if name in lowered), None)
        if image and mask:
            roots.append((Path(where) / image, Path(where) / mask))
            folders[:] = [name for name in folders if name not in (image, mask)]
        if depth >= _DEPTH:
            folders.clear()
    return roots


def _images(folder: Path) -> list[Path]:
    return [path for path in list_files(folder) if is_image(path)]


def _core(name: str) -> str:
    shorter = _AFFIX.sub("", name)
    while shorter != name and shorter:
        name, shorter = shorter, _AFFIX.sub("", shorter)
    return name


def _pair(image_folder: Path, mask_folder: Path, folder: Path, notes: list[str]) -> list[RawCase]:
    images, masks = _images(image_folder), _images(mask_folder)
    exact = _by_key(masks, mask_folder, stem)
    loose = _by_key(masks, mask_folder, lambda path: _core(stem(path)))
    used: set[Path] = set()
    cases = []
    for image in images:
        below = image.parent.relative_to(image_folder).as_posix()
        fitting = exact.get((below, stem(image))) or loose.get((below, _core(stem(image)))) or []
        if len(fitting) > 1:
            names = " and ".join(sorted(path.name for path in fitting)[:2])
            raise InputError(f"{names} both fit it", path=image, hint="leave one mask per image")
        used.update(fitting)
        place = image.relative_to(folder)
        cases.append(
            RawCase(
                images=[image],
                key=stem(image),
                place=(place.parent / stem(place)).as_posix(),
                label=fitting[0] if fitting else None,
                split=split_name(Path(below).parts[0]) if Path(below).parts else None,
            )
        )
    alone = [case.key for case in cases if case.label is None]
    where = image_folder.parent.relative_to(folder)
    prefix = "" if where == Path() else f"{where}: "
    if alone:
        notes.append(
            f"{prefix}{count(len(alone), 'image')} without a mask, listed as unlabeled: {', '.join(alone[:3])}"
        )
    spare = [path.name for path in masks if path not in used]
    if spare:
        notes.append(f"{prefix}{count(len(spare), 'mask')} without an image, left out: {', '.join(spare[:3])}")
    other = sum(not is_image(path) for path in (*list_files(image_folder), *list_files(mask_folder)))
    if other:
        notes.append(f"{prefix}{count(other, 'file')} of another kind left out")
    return cases


def _by_key(masks, mask_folder, name):  # type: ignore[no-untyped-def]
    result: dict[tuple[str, str], list[Path]] = {}
    for mask in masks:
        result.setdefault((mask.parent.relative_to(mask_folder).as_posix(), name(mask)), []).append(mask)
    return result
