"""A folder of images and nothing else: cases without labels, unless a table joins them."""

from __future__ import annotations

from pathlib import Path

from monai_transfer.errors import InputError
from monai_transfer.manifest.layouts.base import FolderContents, Options, RawCase, is_image, list_files, stem

__all__ = ["detect", "read"]


def detect(folder: Path) -> float:
    """0.1 where there is an image at all: the last resort."""
    return 0.1 if folder.is_dir() and any(is_image(path) for path in list_files(folder)) else 0.0


def read(folder: Path, options: Options) -> FolderContents:
    """Every image, without a label.

    Raises:
        InputError: there is no image.
    """
    cases = []
    for path in list_files(folder):
        if is_image(path):
            place = path.relative_to(folder)
            cases.append(RawCase([path], stem(path), (place.parent / stem(place)).as_posix()))
    if not cases:
        raise InputError("no image in it", path=folder, hint="give a folder with images")
    return FolderContents(cases)
