"""Image/mask folder pairs: ``images/`` beside ``masks/`` (or the like), in one place or in several subfolders.

Both names may end in a split (``imagesTr`` and ``labelsTr``, ``images_test`` and ``masks_test``). Where several
subfolders hold such pairs, each is a site, unless they are called train, val and test. A mask belongs to the image of
the same name; failing that, of the same name without words like ``_mask`` or ``_seg``; with ``options.mask_suffix``,
of the same name without that suffix.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
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

__all__ = ["detect", "is_mask_folder", "mask_folders", "read"]

GROUP = "folders"
OPTIONS = ("mask_suffix", "mask_ending")

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "volumes", "scans")
# The more telling names come first: retinal sets hold `mask` (field of view) beside `1st_manual` (vessels).
MASK_FOLDERS = (
    *("1st_manual", "manual", "groundtruth", "ground_truth", "gt", "annotations", "segmentations", "segmentation"),
    *("segs", "seg", "labels", "label", "masks", "mask"),
)
_SPLIT = re.compile(r"^(.*?)[-_ ]?(tr|ts|train|training|val|validation|test|testing)$")
_AFFIX = re.compile(
    r"(^(image|img|mask|seg|label|gt)[_-])|([_-]?(image|img|mask|masks|seg|segmentation|label|labels|gt|groundtruth"
    r"|annotation|manual|training|test|bin|0000)\d*$)",
    re.IGNORECASE,
)
_DEPTH = 3


def detect(folder: Path) -> float:
    """0.9 where a pair of folders with images in both is found."""
    return 0.9 if any(mask and _images(image) and _images(mask) for image, mask in _roots(folder)) else 0.0


def is_mask_folder(name: str) -> bool:
    """Whether a folder's name says that it holds masks: ``masks``, ``labelsTr``, ``ground_truth``."""
    return _word(name)[0] in MASK_FOLDERS


def mask_folders(names: Iterable[str]) -> set[str]:
    """Those of the folders in one place that hold masks of another: ``labelsTr`` where ``imagesTr`` is there too."""
    names = list(names)
    images = any(_word(name)[0] in IMAGE_FOLDERS for name in names)
    return {name for name in names if images and is_mask_folder(name)}


def read(folder: Path, options: Options) -> FolderContents:
    """Every image with its mask; an image without one is unlabelled, a mask without an image is left out.

    Raises:
        InputError: no mask fits any image, or two masks fit the same image.
    """
    found = FolderContents([], texts={"task": "segmentation"})
    roots = _roots(folder)
    filled = [(image, mask) for image, mask in roots if _images(image) and (mask is None or _images(mask))]
    for image, mask in roots:
        if (image, mask) not in filled:
            found.notes.append(f"{image.parent.relative_to(folder)}: no pairs of image files in it, left out")
    several = len({image.parent for image, _ in filled}) > 1
    ends = {_word(image.name)[1] for image, mask in filled if mask is not None}
    for image, mask in filled:
        place = image.parent.relative_to(folder)
        parts = [part for part in place.parts if split_name(part) is None]
        split = next((split_name(part) for part in place.parts if split_name(part)), None)
        if split is None and len(ends) > 1 and mask is not None:  # imagesTr alone is all there is, to be split by us
            split = _word(image.name)[1]
        cases = _pair(image, mask, folder, options, found.notes)
        for case in cases:
            case.split = case.split or split if case.label is not None else None
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
        raise InputError("no mask has the name of an image", path=folder, hint=_way(filled, options))
    return found


def _way(filled: list[tuple[Path, Path | None]], options: Options) -> str:
    """What to do where no mask fits: the suffix that all masks share, if there is one."""
    for image, mask in filled:
        names = sorted(map(stem, _images(image)), key=len, reverse=True)
        masks = [stem(path) for path in _images(mask)] if mask else []
        ends = {next((name[len(i) :] for i in names if name.startswith(i)), None) for name in masks}
        if len(ends) == 1 and None not in ends and not options.mask_suffix:
            return f"they end in {ends.pop()!r}: say so with --mask-suffix"
    return "give every mask the name of its image, or name what it has behind it with --mask-suffix"


def _word(name: str) -> tuple[str, str | None]:
    """A folder's name in lower case without the split that it ends in, and that split: ``imagesTr`` is (images,
    training)."""
    match = _SPLIT.match(name.lower())
    return (match[1], split_name(match[2])) if match and match[1] else (name.lower(), None)


def _roots(folder: Path) -> list[tuple[Path, Path | None]]:
    """Image folders with their mask folders; ``None`` where a split (``imagesTs``) has none beside others that do."""
    roots: list[tuple[Path, Path | None]] = []
    for where, folders, _ in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        depth = len(Path(where).relative_to(folder).parts)
        here: list[tuple[str, str | None]] = []
        for split in {_word(name)[1] for name in folders}:
            words = {_word(name)[0]: name for name in folders if _word(name)[1] == split}
            image = next((words[name] for name in IMAGE_FOLDERS if name in words), None)
            mask = next((words[name] for name in MASK_FOLDERS if name in words), None)
            if image and (mask or split):
                here.append((image, mask))
        if any(mask for _, mask in here):
            roots += [
                (Path(where) / image, Path(where) / mask if mask else None) for image, mask in sorted(here, key=str)
            ]
            used = {name for pair in here for name in pair}
            folders[:] = [name for name in folders if name not in used]
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


def _pair(
    image_folder: Path, mask_folder: Path | None, folder: Path, options: Options, notes: list[str]
) -> list[RawCase]:
    images, masks = _images(image_folder), _images(mask_folder) if mask_folder else []
    if options.mask_ending:
        masks = [path for path in masks if path.name.lower().endswith(options.mask_ending.lower())]
    suffix = options.mask_suffix or ""
    masks = [path for path in masks if stem(path).endswith(suffix)]
    exact = _by_key(masks, mask_folder, lambda path: stem(path).removesuffix(suffix))
    loose = {} if suffix else _by_key(masks, mask_folder, lambda path: _core(stem(path)))
    used: set[Path] = set()
    cases = []
    for image in images:
        below = image.parent.relative_to(image_folder).as_posix()
        fitting = exact.get((below, stem(image))) or loose.get((below, _core(stem(image)))) or []
        if len(fitting) > 1:
            names = " and ".join(sorted(path.name for path in fitting)[:2])
            hint = "choose with --mask-suffix or --mask-ending, or leave one mask per image"
            raise InputError(f"{names} both fit it", path=image, hint=hint)
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
    folders = [image_folder, *([mask_folder] if mask_folder else [])]
    other = sum(not is_image(path) for one in folders for path in list_files(one))
    if other:
        notes.append(f"{prefix}{count(other, 'file')} of another kind left out")
    return cases


def _by_key(masks, mask_folder, name):  # type: ignore[no-untyped-def]
    result: dict[tuple[str, str], list[Path]] = {}
    for mask in masks:
        result.setdefault((mask.parent.relative_to(mask_folder).as_posix(), name(mask)), []).append(mask)
    return result
