"""``.npz`` sets: MedMNIST style (``train_images``, ``train_labels``, ``val_...``) or ``images, labels, class_names``.

MONAI's data list names files, so the images are unpacked to PNG beside the output. Splits that the set gives are kept;
an image that stands in two of them, bit for bit, is dropped from the earlier one (training before validation before
test), so that nothing that is measured was trained on.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from monai_transfer.errors import InputError
from monai_transfer.free_memory import free_memory
from monai_transfer.manifest.layouts.base import (
    FolderContents,
    Options,
    RawCase,
    count,
    derived_path,
    is_image,
    list_files,
    split_name,
)

__all__ = ["detect", "read"]

TAKES_FILE = True
PSEUDONYMS = True

MAX_RATIO = 200
"""How much larger arrays may be than the file that holds them: pictures deflate to a tenth, mostly black ones to some
hundredth, zeros to a thousandth."""
MAX_ALWAYS = 256 << 20
"""Bytes that are unpacked whatever their ratio: a small set of empty pictures is none that fills a memory."""

_ORDER = ("test", "validation", "training")


def detect(folder: Path) -> float:
    """1 for an ``.npz`` file; 0.8 for a folder that holds one and no images."""
    if folder.is_file():
        return 1.0 if folder.suffix.lower() == ".npz" else 0.0
    files = list(list_files(folder)) if any(folder.glob("*.npz")) else []
    return 0.8 if files and not any(is_image(path) for path in files) else 0.0


def read(folder: Path, options: Options) -> FolderContents:
    """Unpack the set under ``options.files / "images"`` and list it.

    Raises:
        InputError: several ``.npz`` files, or arrays that are no images with one label each.
    """
    path = _file(folder)
    _refuse_bomb(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise InputError(
            f"cannot be read as .npz without unpickling ({type(error).__name__})",
            path=path,
            hint="save plain arrays with numpy.savez",
        ) from None
    parts: dict[str | None, tuple[np.ndarray, np.ndarray | None]] = {}
    for name, array in arrays.items():
        if name == "images":
            parts[None] = (array, arrays.get("labels"))
        elif name.endswith("_images") and split_name(name.removesuffix("_images")):
            parts[split_name(name.removesuffix("_images"))] = (array, arrays.get(name.replace("_images", "_labels")))
    if not parts:
        hint = "it needs images and labels, or train_images, train_labels, val_images, ..."
        raise InputError(f"holds {', '.join(sorted(arrays)) or 'nothing'}", path=path, hint=hint)
    found = FolderContents([], texts={"name": path.stem})
    if "class_names" in arrays:
        found.labels = dict(enumerate(map(str, arrays["class_names"].tolist())))
    seen: dict[str, tuple[str | None, str]] = {}
    cases: dict[str | None, list[RawCase]] = {}
    dropped: dict[tuple[str, str], int] = {}
    for split in sorted(parts, key=lambda s: _ORDER.index(s) if s in _ORDER else -1):
        images, labels = _checked(*parts[split], split, path)
        for i in range(len(images)):
            digest = hashlib.sha256(images[i].tobytes()).hexdigest()
            name = f"{split or 'image'}_{i:05d}"
            first_split, first_name = seen.setdefault(digest, (split, name))
            if first_split != split:
                key = (str(split), str(first_split))
                dropped[key] = dropped.get(key, 0) + 1
                continue
            target = options.files / "images" / f"{name}.png"
            _write(images[i], target)
            # Equal images are taken as one patient, so that no later split can part them.
            case = RawCase([target], name, name, None if labels is None else labels[i].item(), patient=first_name)
            case.split = split
            cases.setdefault(split, []).append(case)
    found.cases = [case for split in parts for case in cases.get(split, [])]
    for (split, other), n in dropped.items():
        found.notes.append(f"{count(n, 'exact duplicate')} dropped from {split}: also in {other}")
    found.notes.append(f"{count(len(found.cases), 'image')} unpacked to {options.files / 'images'}")
    return found


def _refuse_bomb(path: Path) -> None:
    """Arrays that are far larger than the file, or than memory, by the archive's directory and by their own headers."""
    declared = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as stream:
                    major = np.lib.format.read_magic(stream)[0]
                    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                    shape, _, dtype = read(stream)
                needs = math.prod(shape) * dtype.itemsize
                if not dtype.hasobject and needs > member.file_size:
                    fault = f"{member.filename} promises {needs:,} bytes and holds {member.file_size:,}"
                    raise InputError(fault, path=path, hint="get the file again")
                declared += max(needs, member.file_size)
    except InputError:
        raise
    except Exception:  # damaged in one of many ways: reading it says so
        return
    if declared > max(MAX_ALWAYS, MAX_RATIO * path.stat().st_size):
        fault = f"holds {path.stat().st_size:,} bytes that unpack to {declared:,}"
        raise InputError(fault, path=path, hint="no set of pictures is so; get the file again")
    if declared > free_memory() // 2:  # it is unpacked, then copied picture by picture
        fault = f"unpacks to {declared / 2**30:.1f} GiB, more than half of the free memory"
        raise InputError(fault, path=path, hint="unpack it to PNG files part by part, and give their folder")


def _file(folder: Path) -> Path:
    if folder.is_file():
        return folder
    files = sorted(folder.glob("*.npz"))
    if len(files) != 1:
        raise InputError(f"holds {count(len(files), '.npz file')}", path=folder, hint="give the one file that is meant")
    return files[0]


def _checked(images, labels, split, path):  # type: ignore[no-untyped-def]
    where = f"{split} images" if split else "images"
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3)):
        hint = "8-bit images of shape N x H x W or N x H x W x 3 can be unpacked"
        raise InputError(f"{where} are {images.dtype} of shape {images.shape}", path=path, hint=hint)
    if labels is not None:
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iufU":
            hint = "one class number, class name or value per image is understood"
            raise InputError(f"labels of {where} have shape {labels.shape}", path=path, hint=hint)
    return images.squeeze(-1) if images.ndim == 4 and images.shape[-1] == 1 else images, labels


def _write(image: np.ndarray, target: Path) -> None:
    if not target.exists() or not np.array_equal(np.asarray(Image.open(target)), image):
        with derived_path(target) as temporary:
            Image.fromarray(image).save(temporary)
