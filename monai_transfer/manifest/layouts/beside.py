"""Image and mask in one folder: ``case.nii.gz`` and ``case_seg.nii.gz``, or ``P1/image.nii.gz`` and ``P1/mask.nii.gz``.

A file whose name ends in a word like ``_seg``, ``_mask`` or ``_gt`` is a mask. Its image is the one with the name
before that word; failing that, the only other image in the folder. With ``options.mask_suffix``, masks are the files
with that suffix instead; with ``options.mask_ending``, those with that ending (``a.png`` beside ``a.jpg``). With
``options.channels``, the image is made of the files whose names end in those words (``P1_t1.nii.gz``,
``P1_flair.nii.gz``).

A folder is a patient where it holds one case or its cases begin with its name, else (of several) a site.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from monai_transfer.errors import InputError
from monai_transfer.manifest.channels import channel_of, settle_missing, with_missing
from monai_transfer.manifest.layouts.base import (
    FolderContents,
    Options,
    RawCase,
    count,
    is_image,
    list_files,
    mask_of,
    split_name,
    stem,
)

__all__ = ["detect", "read"]

GROUP = "folders"
OPTIONS = ("channels", "mask_suffix", "mask_ending", "missing_channels")


def detect(folder: Path) -> float:
    """0.7 where a mask lies beside its image."""
    if not folder.is_dir():
        return 0.0
    cases = _cases(folder, Options(files=folder), [])
    return 0.7 if any(case.label is not None for case in cases) or _words(folder) else 0.0


def read(folder: Path, options: Options) -> FolderContents:
    """Every image with the mask beside it.

    Raises:
        InputError: no mask lies beside an image, or two fit one.
    """
    notes: list[str] = []
    cases = _cases(folder, options, notes)
    labelled = [case for case in cases if case.label is not None]
    if not labelled:
        words = [] if options.channels else _words(folder)
        if words:
            hint = f"say which make up the image: --channels {','.join(words)}"
            raise InputError("several images belong to each mask", path=folder, hint=hint)
        hint = "call masks CASE_seg or CASE_mask, or name what masks have behind CASE with --mask-suffix"
        raise InputError("no mask lies beside an image", path=folder, hint=hint)
    bare = len(cases) - len(labelled)
    if bare:
        names = ", ".join(case.key for case in cases if case.label is None)
        notes.append(f"{count(bare, 'image')} without a mask, listed as unlabeled: {names[:80]}")
    found = FolderContents(cases, notes, texts={"task": "segmentation"})
    found.channel_names = dict(enumerate(options.channels))
    return found


def _words(folder: Path) -> list[str]:
    """Last words of the images that share a mask (``t1``, ``flair`` of ``P1_t1``, ``P1_flair``, ``P1_seg``), if any."""
    names = defaultdict(list)
    for path in list_files(folder):
        if is_image(path):
            names[path.parent].append(stem(path))
    for group in names.values():
        for case in filter(None, map(mask_of, group)):
            words = [name[len(case) + 1 :] for name in group if name.startswith(case)]
            words = sorted(word for word in words if word and mask_of(word) is None)
            if len(words) > 1 and case not in group:
                return words
    return []


def _cases(folder: Path, options: Options, notes: list[str]) -> list[RawCase]:
    groups: dict[Path, list[Path]] = defaultdict(list)
    for path in list_files(folder):
        if is_image(path):
            groups[path.parent].append(path)
    by_folder: dict[Path, list[RawCase]] = {}
    spare: list[str] = []
    for where, files in groups.items():
        masks = _masks(files, options)
        images = _images([path for path in files if path not in masks], options, where)
        taken: dict[str, Path] = {}
        for mask, name in masks.items():
            target = name if name in images else next(iter(images)) if len(images) == 1 else None
            if target is None:
                spare.append(mask.name)
            elif target in taken:
                hint = "choose with --mask-suffix or --mask-ending, or leave one kind out with --exclude"
                raise InputError(f"{mask.name} and {taken[target].name} both fit {target}", path=where, hint=hint)
            else:
                taken[target] = mask
        below = where.relative_to(folder)
        by_folder[where] = []
        for name, parts in images.items():
            case = RawCase(list(parts.values()), name, (below / name).as_posix(), taken.get(name))
            by_folder[where].append(with_missing(case, parts, options.channels))
    found = [case for cases in by_folder.values() for case in cases]
    kept = set(map(id, settle_missing(found, options.channels, options.missing_channels, folder, notes)))
    by_folder = {where: [case for case in cases if id(case) in kept] for where, cases in by_folder.items()}
    if spare:
        notes.append(f"{count(len(spare), 'mask')} without an image, left out: {', '.join(spare[:3])}")
    _place(folder, by_folder)
    return [case for where in sorted(by_folder) for case in by_folder[where]]


def _masks(files: list[Path], options: Options) -> dict[Path, str]:
    """The masks among the files of a folder, each with the name of the image that it belongs to."""
    if options.mask_suffix or options.mask_ending:
        suffix, ending = options.mask_suffix or "", (options.mask_ending or "").lower()
        chosen = [path for path in files if stem(path).endswith(suffix) and path.name.lower().endswith(ending)]
        return {path: stem(path).removesuffix(suffix) for path in chosen}
    masks = {path: case for path in files if (case := mask_of(stem(path))) is not None}
    return masks | {path: stem(path) for path in files if path.name.lower().endswith(".seg.nrrd") and path not in masks}


def _images(files: list[Path], options: Options, where: Path) -> dict[str, dict[str, Path]]:
    """The files of each image by its name and their channel: one file each, or those of the wanted channels together.

    Raises:
        InputError: two files have one name but for their ending.
    """
    result: dict[str, dict[str, Path]] = defaultdict(dict)
    if not options.channels:
        for path in files:
            other = result[stem(path)].setdefault("", path)
            if other != path:
                fault = f"{other.name} and {path.name} share a name"
                hint = f"if one is the mask, say which: --mask-ending {path.name[len(stem(path)) :]}"
                raise InputError(fault, path=where, hint=hint)
        return result
    for path in files:
        found = channel_of(stem(path), options.channels)
        if found is not None:
            result[found[0] or path.parent.name][found[1]] = path
    return {name: {c: parts[c] for c in options.channels if c in parts} for name, parts in result.items()}


def _place(folder: Path, by_folder: dict[Path, list[RawCase]]) -> None:
    """Patients, sites and splits from the folders, in place."""
    filled = {where: cases for where, cases in by_folder.items() if cases}
    several = len(filled) > 1
    for where, cases in filled.items():
        parts = where.relative_to(folder).parts
        split = next((split_name(part) for part in parts if split_name(part)), None)
        rest = [part for part in parts if split_name(part) is None]
        own = len(cases) == 1 or all(case.key.startswith(where.name) for case in cases)
        for case in cases:
            case.split = split
            if rest and several and own:
                case.patient = rest[-1]
                case.key = rest[-1] if len(cases) == 1 else case.key
            upper = rest[:-1] if own else rest
            case.site = "_".join(upper) if several and upper else None
    sites = {case.site for cases in filled.values() for case in cases}
    if len(sites) == 1:  # one name for all tells nothing
        for cases in filled.values():
            for case in cases:
                case.site = None
