"""Image and mask in one folder: ``case.nii.gz`` and ``case_seg.nii.gz``, or ``P1/image.nii.gz`` and ``P1/mask.nii.gz``.

A file whose name ends in a word like ``_seg``, ``_mask`` or ``_gt`` is a mask. Its image is the one with the name
before that word; failing that, the only other image in the folder. With ``options.channels``, the image is made of the
files whose names end in those words (``P1_t1.nii.gz``, ``P1_flair.nii.gz``).

A folder is a patient where it holds one case or its cases begin with its name, else (of several) a site.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
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

_MASK = re.compile(
    r"^(?:(.*?)[ _.-]+)?(seg|segmentation|mask|label|labels|gt|ground_?truth|roi|annotation|1stHO|manual1?)$",
    re.IGNORECASE,
)


def detect(folder: Path) -> float:
    """0.7 where a mask lies beside its image."""
    if not folder.is_dir():
        return 0.0
    cases = _cases(folder, Options(folder), [])
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
        raise InputError("no mask lies beside an image", path=folder, hint="call masks CASE_seg or CASE_mask")
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
        for match in filter(None, map(_MASK.match, group)):
            words = [name[len(match[1]) + 1 :] for name in group if match[1] and name.startswith(match[1])]
            words = sorted(word for word in words if word and not _MASK.match(word))
            if len(words) > 1 and match[1] not in group:
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
        masks = {path: match[1] or "" for path in files if (match := _MASK.match(stem(path)))}
        masks |= {path: stem(path) for path in files if path.name.lower().endswith(".seg.nrrd") and path not in masks}
        images = _images([path for path in files if path not in masks], options.channels)
        taken: dict[str, Path] = {}
        for mask, name in masks.items():
            target = name if name in images else next(iter(images)) if len(images) == 1 else None
            if target is None:
                spare.append(mask.name)
            elif target in taken:
                raise InputError(f"{mask.name} and {taken[target].name} both fit {target}", path=where)
            else:
                taken[target] = mask
        below = where.relative_to(folder)
        by_folder[where] = [
            RawCase(paths, name, (below / name).as_posix(), taken.get(name)) for name, paths in images.items()
        ]
    if spare:
        notes.append(f"{count(len(spare), 'mask')} without an image, left out: {', '.join(spare[:3])}")
    _place(folder, by_folder)
    return [case for where in sorted(by_folder) for case in by_folder[where]]


def _images(files: list[Path], channels: Sequence[str]) -> dict[str, list[Path]]:
    """Images by name: one file each, or the files of the wanted channels together."""
    if not channels:
        return {stem(path): [path] for path in files}
    result: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in files:
        for channel in channels:
            name = stem(path)
            if name == channel or (name.endswith(channel) and name[-len(channel) - 1] in "_-. "):
                result[name[: -len(channel)].rstrip("_-. ") or path.parent.name][channel] = path
    return {
        name: [parts[channel] for channel in channels] for name, parts in result.items() if len(parts) == len(channels)
    }


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
