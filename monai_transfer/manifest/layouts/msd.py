"""Medical Segmentation Decathlon: a ``dataset.json`` with label names and a list of image/label pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError
from monai_transfer.manifest.layouts.base import FolderContents, Options, RawCase, count, is_image, split_name, stem
from monai_transfer.manifest.layouts.nnunet import read_labels
from monai_transfer.safe_parse import read_json

__all__ = ["detect", "read"]


def detect(folder: Path) -> float:
    """0.98 where a ``dataset.json`` lists its training cases."""
    try:
        content = read_json(folder / "dataset.json")
    except (OSError, ValueError):
        return 0.0
    return 0.98 if isinstance(content, dict) and isinstance(content.get("training"), list) else 0.0


def read(folder: Path, options: Options) -> FolderContents:
    """The cases that ``dataset.json`` lists. ``test`` cases without a label become ``unlabeled``.

    Raises:
        InputError: the file is no Decathlon list, or lists a file that is not there.
    """
    path = folder / "dataset.json"
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError("does not hold a JSON object", path=path, hint="give a folder with a dataset.json")
    listed = {key: content[key] for key in content if split_name(key) and isinstance(content[key], list)}
    found = FolderContents([])
    for key, items in listed.items():
        # A list called "training" alone is all there is, to be split by us; beside labelled others it is a split.
        for i, item in enumerate(items):
            found.cases.append(_case(item, split_name(key), f"{key}[{i}]", folder, path))
    labelled = {case.split for case in found.cases if case.label is not None}
    dropped = sum(case.label is None for case in found.cases)
    for case in found.cases:
        case.split = case.split if case.label is not None and len(labelled) > 1 else None
    if dropped:
        found.notes.append(f"{count(dropped, 'case')} without a label: listed as unlabeled")
    read_labels({"labels": content.get("labels")} if isinstance(content.get("labels"), dict) else {}, found, path)
    found.channel_names = _names(content.get("modality") or content.get("channel_names"), path)
    for key in ("name", "description", "licence", "reference"):
        if isinstance(content.get(key), str) and content[key].strip():
            found.texts[key] = content[key].strip()
    if set(found.channel_names.values()):
        found.texts["modality"] = ", ".join(dict.fromkeys(found.channel_names.values()))
    if not labelled or any(isinstance(case.label, Path) for case in found.cases):
        found.texts["task"] = "segmentation"
    return found


def _case(item: Any, split: str | None, where: str, folder: Path, path: Path) -> RawCase:
    entry = {"image": item} if isinstance(item, str) else item
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), (str, list)):
        raise InputError(f"{where} has no image", path=path, hint='items read {"image": "...", "label": "..."}')
    images = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
    images = [str(name).replace("\\", "/") for name in images]  # written on Windows
    label = entry.get("label")
    if isinstance(label, str):
        label = label.replace("\\", "/")
    # A text is a mask's path, unless it has no image's suffix: then it is a class name, and a number a class or value.
    mask = isinstance(label, str) and is_image(Path(label))
    if isinstance(label, bool) or not isinstance(label, (str, int, float, type(None))):
        raise InputError(f"{where} has the label {label!r}", path=path, hint="give a path, a class, a number or null")
    for name in [*images, *([str(label)] if mask else [])]:
        if not (folder / name).exists():
            raise InputError(
                f"{where} lists {name}, which is not there", path=path, hint="restore it, or remove the item"
            )
    first = Path(images[0])
    return RawCase(
        images=[folder / name for name in images],
        key=stem(first),
        place=(first.parent / stem(first)).as_posix(),
        label=folder / str(label) if mask else label,
        split=split,
    )


def _names(given: Any, path: Path) -> dict[int, str]:
    if not isinstance(given, dict):
        return {}
    try:
        return {int(number): str(name) for number, name in given.items()}
    except ValueError:
        raise InputError(f"names {given} are not by number", path=path, hint='write {"0": "background", ...}') from None
