"""nnU-Net raw: ``imagesTr/case_0000.nii.gz`` (a file per channel), ``labelsTr/case.nii.gz`` and ``dataset.json``.

Both versions of ``dataset.json`` are understood: names by number, and numbers by name. In the second, a list of numbers
makes all labels regions, written in ``regions_class_order``, and ``ignore`` names voxels that are not annotated.
Labelled ``imagesTs`` are the test split, unlabelled ones ``unlabeled``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.manifest.channels import settle_missing
from monai_transfer.manifest.layouts.base import FolderContents, Options, RawCase, count, is_image, list_files, stem
from monai_transfer.safe_parse import read_json

__all__ = ["detect", "read", "read_labels"]

OPTIONS = ("missing_channels",)

_CHANNEL = re.compile(r"^(.+)_(\d{4})$")


def detect(folder: Path) -> float:
    """1 where all images in ``imagesTr`` end in a channel number of four digits."""
    names = [stem(path) for path in _images(folder / "imagesTr")]
    return 1.0 if names and all(_CHANNEL.match(name) for name in names) else 0.0


def read(folder: Path, options: Options) -> FolderContents:
    """The cases of ``imagesTr`` and ``imagesTs`` with their masks.

    Raises:
        InputError: a case lacks a channel, ``dataset.json`` is unreadable, or no case has a mask.
    """
    description = _description(folder / "dataset.json")
    found = FolderContents([], texts={"task": "segmentation"})
    channels = description.get("channel_names") or description.get("modality") or {}
    found.channel_names = {int(k): str(v) for k, v in channels.items() if str(k).isdecimal()}
    if found.channel_names:
        found.texts["modality"] = ", ".join(dict.fromkeys(found.channel_names.values()))
    for key in ("name", "description", "licence", "reference"):
        if isinstance(description.get(key), str) and description[key].strip():
            found.texts[key] = description[key].strip()
    read_labels(description, found, folder / "dataset.json")
    numbers = sorted(found.channel_names)
    for part in ("Tr", "Ts"):
        groups: dict[str, dict[int, Path]] = {}
        for path in _images(folder / f"images{part}"):
            match = _CHANNEL.match(stem(path))
            if match is None:
                raise InputError("has no channel number", path=path, hint="name images CASE_0000, CASE_0001, ...")
            groups.setdefault(match[1], {})[int(match[2])] = path
        masks = {stem(path): path for path in _images(folder / f"labels{part}")}
        for name, files in sorted(groups.items()):
            mask = masks.pop(name, None)
            case = RawCase([], name, f"images{part}/{name}", mask, split="test" if part == "Ts" and mask else None)
            numbers = numbers or sorted(files)  # the first case has them all, where dataset.json does not say
            found.cases.append(_with_channels(case, files, numbers, folder / f"images{part}"))
        if masks:
            shown = ", ".join(path.name for path in list(masks.values())[:3])
            found.notes.append(f"labels{part}: {count(len(masks), 'mask')} without an image, left out: {shown}")
    names = [found.channel_names.get(number, f"{number:04d}") for number in numbers]
    found.cases = settle_missing(found.cases, names, options.missing_channels, folder, found.notes)
    if any(case.split == "test" for case in found.cases):
        for case in found.cases:
            case.split = case.split or ("training" if case.label is not None else None)
    bare = sum(case.label is None for case in found.cases)
    if bare == len(found.cases):
        raise InputError(
            "no image has a mask", path=folder / "labelsTr", hint="name masks CASE, without channel number"
        )
    if bare:
        found.notes.append(f"{count(bare, 'case')} without a mask: listed as unlabeled")
    return found


def _with_channels(case: RawCase, files: dict[int, Path], numbers: list[int], where: Path) -> RawCase:
    """The case with a file for every channel, a stand-in where it has none."""
    extra = sorted(set(files) - set(numbers))
    if extra:
        hint = "name it under channel_names in dataset.json, or take it out"
        raise InputError(f"case {case.key} has one too many, channel {extra[0]:04d}", path=where, hint=hint)
    case.images = [files.get(number, files[min(files)]) for number in numbers]
    case.missing = [i for i, number in enumerate(numbers) if number not in files]
    return case


def _images(folder: Path) -> list[Path]:
    return [path for path in list_files(folder) if is_image(path)]


def _description(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def read_labels(description: dict[str, Any], found: FolderContents, path: Path) -> None:
    """Labels, regions and ignored values of a ``dataset.json`` of either version, into ``found``.

    Raises:
        InputError: a label is neither a number nor a list of numbers.
    """
    singles: dict[str, list[int]] = {}
    regions = False
    for key, value in (description.get("labels") or {}).items():
        if isinstance(value, str) and key.isdecimal():
            singles[value] = [int(key)]
        elif isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
            singles[key] = [int(value)]
        elif isinstance(value, list) and value and all(isinstance(number, int) for number in value):
            singles[key] = value
            regions = True
        else:
            hint = 'write {"background": 0, "tumour": 1}, or lists of numbers for regions'
            raise InputError(f"label {key!r}: {value!r} is no number", path=path, hint=hint)
    found.ignore = singles.pop("ignore", [])
    if not regions:
        found.labels = {values[0]: name for name, values in singles.items()}
    else:
        background = next((name for name, values in singles.items() if values == [0]), "background")
        singles.pop(background, None)
        numbers = sorted({number for values in singles.values() for number in values})
        alone = {values[0]: name for name, values in singles.items() if len(values) == 1}
        found.labels = {0: background} | {n: alone.get(n, f"label_{n}") for n in numbers}
        found.regions = singles
        order = description.get("regions_class_order")
        if isinstance(order, list) and len(order) == len(singles):
            found.regions_class_order = [int(number) for number in order]
        found.notes.append(f"regions: {', '.join(singles)}, one output each")
    if found.ignore:
        shown = ", ".join(map(str, found.ignore))
        found.notes.append(f"voxels of {shown} (ignore) are neither learned from nor scored")
