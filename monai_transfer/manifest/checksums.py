"""Checksums of images: of one file, or of a folder that holds one DICOM series."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

from monai_transfer.files import sha256_file

__all__ = ["sha256_image"]


def sha256_image(path: str | Path) -> str:
    """SHA-256 of a file; for a folder, of its files' sorted hashes (so their names and order do not matter).

    Raises:
        OSError: it cannot be read, or is neither a file nor a folder.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "1.dcm").write_bytes(b"one slice")
    >>> before = sha256_image(folder)
    >>> _ = (folder / "1.dcm").rename(folder / "other.dcm")
    >>> sha256_image(folder) == before
    True
    """
    path = Path(path)
    if path.is_dir():
        hashes = sorted(
            sha256_file(file) for file in path.iterdir() if file.is_file() and not file.name.startswith(".")
        )
        return hashlib.sha256("".join(hashes).encode()).hexdigest()
    if path.exists() and not path.is_file():  # opening a pipe or a device would wait for ever
        raise OSError(errno.EINVAL, "neither a file nor a folder", str(path))
    return sha256_file(path)
