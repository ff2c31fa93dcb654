"""nnU-Net raw: ``imagesTr/case_0000.nii.gz`` (a file per channel), ``labelsTr/case.nii.gz`` and ``dataset.json``.

Both versions of ``dataset.json`` are understood: names by number, and numbers by name. Labelled ``imagesTs`` are the
test split, unlabelled ones ``unlabeled``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.manifest.layouts.base import FolderContents, Options, RawCase, count, is_image, list_files, stem
from monai_transfer.safe_parse import read_json

__all__ = ["detect", "read"]

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
    found.labels = _labels(description.get("labels") or {}, folder, found.notes)
    numbers: set[int] | None = set(found.channel_names) or None
    for part in ("Tr", "Ts"):
        groups: dict[str, dict[int, Path]] = {}
        for path in _images(folder / f"images{part}"):
            match = _CHANNEL.match(stem(path))
            if match is None:
                raise InputError("has no channel number", path=path, hint="name images CASE_0000, CASE_0001, ...")
            groups.setdefault(match[1], {})[int(match[2])] = path
        masks = {stem(path): path for path in _images(folder / f"labels{part}")}
        for name, files in sorted(groups.items()):
            numbers = numbers or set(files)
            if set(files) != numbers:
                lacking = sorted(numbers - set(files)) or sorted(set(files) - numbers)
                what = "lacks" if numbers - set(files) else "has one too many,"
                raise InputError(f"case {name} {what} channel {lacking[0]:04d}", path=folder / f"images{part}")
            images = [files[number] for number in sorted(files)]
            split = None if part == "Tr" else "test"
            mask = masks.pop(name, None)
            found.cases.append(RawCase(images, name, f"images{part}/{name}", mask, split=split if mask else None))
        if masks:
            shown = ", ".join(path.name for path in list(masks.values())[:3])
            found.notes.append(f"labels{part}: {count(len(masks), 'mask')} without an image, left out: {shown}")
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


def _images(folder: Path) -> list[Path]:
    return [path for path in list_files(folder) if is_image(path)]


def _description(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = read_json(path)
    return content if isinstance(content, dict) else {}


def _labels(labels: dict[str, Any], folder: Path, notes: list[str]) -> dict[int, str]:
    """Names by number from either version; regions (lists of numbers) leave their single numbers nameless."""
    names: dict[int, str] = {}
    regions = []
    for key, value in labels.items():
        if isinstance(value, str) and key.isdecimal():
            names[int(key)] = value
        elif isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
            names[int(value)] = key
        elif isinstance(value, list) and all(isinstance(number, int) for number in value):
            regions.append(key)
            for number in value:
                names.setdefault(number, f"label_{number}")
        else:
            raise InputError(f"label {key!r}: {value!r} is no number", path=folder / "dataset.json")
    if regions:
        notes.append(f"regions ({', '.join(regions)}) are not kept: the masks' own numbers are, as label_N")
    if "ignore" in names.values():
        notes.append("the label 'ignore' is listed as a class: leave it out of the loss")
    return names
