"""The cache of the embedded sets: made on first use, complete or absent, never stale."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

from monai_transfer.errors import InputError
from monai_transfer.files import unwritable

from .sets import TASKS, write_set

__all__ = ["embedded_set"]

VERSION = 1
STALE_SECONDS = 3600.0

log = logging.getLogger(__name__)


def embedded_set(task: str = "segmentation", folder: str | Path | None = None) -> str:
    """Folder of the embedded set for ``task``, made when it is not there yet (some seconds).

    The set is written beside its final place and renamed, so a folder of that name is always complete, also when
    several processes ask at once. Its name ends with a hash of the generator's code: another generator, another folder.

    Args:
        task: "segmentation" (3D, 0 background, 1 ventricle, 2 lesion), "classification" (64 x 64 slices, lesion or no
            lesion), "regression" (3D image to the volume of the ventricles in ml) or "localization" (3D, 0 background,
            1 lesion).
        folder: where sets are kept; by default ``$MONAI_TRANSFER_CACHE``, else ``$XDG_CACHE_HOME/monai_transfer``, else
            ``~/.cache/monai_transfer``.

    Returns:
        Path of the set; it holds ``manifest.json``.

    Raises:
        InputError: unknown task, or the folder cannot be written.

    >>> try:
    ...     embedded_set("detection")
    ... except InputError as error:
    ...     print(error.hint)
    choose one of segmentation, classification, regression, localization
    """
    if task not in TASKS:
        raise InputError(f"unknown task {task!r}", hint=f"choose one of {', '.join(TASKS)}")
    root = Path(folder).expanduser() if folder is not None else _cache_root()
    target = root.absolute() / f"embedded-{task}-v{VERSION}-{_generator_hash()}"
    if not (target / "manifest.json").is_file():
        try:
            _make(task, target)
        except OSError as error:
            raise unwritable(root, error, "name another folder for embedded data by MONAI_TRANSFER_CACHE") from error
    return str(target)


def _cache_root() -> Path:
    if own := os.environ.get("MONAI_TRANSFER_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "monai_transfer"


def _generator_hash() -> str:
    """Short hash of the source that decides what is in a set."""
    digest = hashlib.sha256()
    for name in ("anatomy", "physics", "sets", "sites", "write"):
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()[:8]


def _make(task: str, target: Path) -> None:
    log.info("making the embedded %s set in %s (once)", task, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        write_set(task, temporary)
        try:
            temporary.rename(target)
        except OSError:
            if (target / "manifest.json").is_file():
                return  # another process was faster: its set is the same
            shutil.rmtree(target)  # somebody took files out of it
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_stale(target: Path) -> None:
    """Clear what a killed process left behind."""
    for path in target.parent.glob(f".{target.name}.*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
