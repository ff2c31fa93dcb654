"""Hashes that lie beside a file, verified before it is used: bit flips load silently, and so would another's weights.

A hash lies beside a file in ``<file>.sha256`` (written with each checkpoint), in the ``large_files.yml`` and in the
``hashes.sha256`` of the bundle around it (written by ``export``; ``sha256sum -c hashes.sha256`` verifies it as well).
"""

from __future__ import annotations

import os
from pathlib import Path

from monai_transfer.errors import InputError
from monai_transfer.files import sha256_file, write_text
from monai_transfer.safe_parse import MAX_CONFIG_BYTES
from monai_transfer.weights.large_files import read_large_files

__all__ = ["HASHES", "changed_files", "renew_hashes", "verify_file", "write_hashes"]

HASHES = "hashes.sha256"
_LEFT_OUT = ("runs", "predictions", "__pycache__", ".git")
_HINT = "restore it from a copy, or get it again from where it came; if it was replaced on purpose, write its new hash"


def verify_file(path: str | Path) -> None:
    """Refuse a file whose bytes are not those of a hash beside it; one without any hash passes.

    Args:
        path: a weights file.

    Raises:
        InputError: it differs; names the place of the hash.

    One byte is changed after the hash was written:

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "model.pt"
    >>> _ = path.write_bytes(b"weights")
    >>> _ = path.with_name("model.pt.sha256").write_text(sha256_file(path))
    >>> verify_file(path)
    >>> _ = path.write_bytes(b"veights")
    >>> try:
    ...     verify_file(path)
    ... except InputError as error:
    ...     print(error.fault)
    is damaged or another file: its SHA-256 is not the one in model.pt.sha256
    """
    path = Path(path)
    beside = path.with_name(path.name + ".sha256")
    if beside.is_file():
        known = [line.split()[0].lower() for line in _lines(beside) if line.split()]
        if known and sha256_file(path) not in known:  # two while it was being replaced
            fault = f"is damaged or another file: its SHA-256 is not the one in {beside.name}"
            raise InputError(fault, path=path, hint=_HINT)
    root = path.absolute().parent.parent
    if path.absolute().parent.name != "models":
        return
    for entry in read_large_files(root):
        if root / entry.path == path.absolute() and not entry.fits(path):
            fault = f"is damaged or another file: its {entry.hash_type} is not the one in the bundle's large_files"
            raise InputError(fault, path=path, hint=_HINT)
    released = _released(root).get(f"models/{path.name}")
    if released is not None and sha256_file(path) != released:
        fault = f"is damaged or another file: its SHA-256 is not the one in the bundle's {HASHES}"
        raise InputError(fault, path=path, hint=_HINT)


def write_hashes(bundle: str | Path) -> Path:
    """Write ``hashes.sha256`` with the SHA-256 of every file of a bundle that is about to be released.

    Args:
        bundle: its folder.

    >>> import tempfile
    >>> bundle = Path(tempfile.mkdtemp())
    >>> _ = (bundle / "train.yaml").write_text("lr: 0.1")
    >>> write_hashes(bundle).read_text().split()[1]
    'train.yaml'
    """
    bundle = Path(bundle)
    lines = [f"{sha256_file(bundle / name)}  {name}" for name in _files(bundle) if name != HASHES]
    write_text(bundle / HASHES, "\n".join(lines) + "\n")
    return bundle / HASHES


def renew_hashes(bundle: str | Path, *names: str) -> None:
    """Put the SHA-256 of files that were replaced on purpose into ``hashes.sha256``; nothing where there is none.

    Args:
        bundle: its folder.
        names: of the files, in the bundle.

    >>> import tempfile
    >>> bundle = Path(tempfile.mkdtemp())
    >>> _ = (bundle / "model.pt").write_bytes(b"as released")
    >>> _ = write_hashes(bundle)
    >>> _ = (bundle / "model.pt").write_bytes(b"fine-tuned")
    >>> renew_hashes(bundle, "model.pt")
    >>> changed_files(bundle)
    []
    """
    known = _released(Path(bundle))
    if known:
        known |= {name: sha256_file(Path(bundle) / name) for name in names}
        write_text(Path(bundle) / HASHES, "".join(f"{known[name]}  {name}\n" for name in sorted(known)))


def changed_files(bundle: str | Path) -> list[str]:
    """What of a released bundle is no more as it was: files that differ, are gone, or came to it, one line each.

    An empty list where it carries no hashes.

    Args:
        bundle: its folder.

    One byte of a config was changed after ``write_hashes``:

    >>> import tempfile
    >>> bundle = Path(tempfile.mkdtemp())
    >>> _ = (bundle / "train.yaml").write_text("lr: 0.1")
    >>> _ = write_hashes(bundle)
    >>> changed_files(bundle)
    []
    >>> _ = (bundle / "train.yaml").write_text("lr: 0.2")
    >>> changed_files(bundle)
    ['train.yaml has changed']
    """
    bundle = Path(bundle)
    known = _released(bundle)
    if not known:
        return []
    found = []
    for name, value in known.items():
        place = bundle / name
        if not place.is_file():
            found.append(f"{name} is gone")
        elif sha256_file(place) != value:
            found.append(f"{name} has changed")
    return found + [f"{name} is new" for name in _files(bundle) if name not in known and name != HASHES]


def _files(bundle: Path) -> list[str]:
    names = []
    for root, folders, files in os.walk(bundle):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT)
        names += [(Path(root) / name).relative_to(bundle).as_posix() for name in sorted(files)]
    return sorted(name for name in names if not name.endswith(".tmp"))


def _released(bundle: Path) -> dict[str, str]:
    path = bundle / HASHES
    if not path.is_file():
        return {}
    found = {}
    for line in _lines(path):
        value, _, name = line.partition("  ")
        if name and len(value) == 64 and ".." not in Path(name).parts and not Path(name).is_absolute():
            found[name.strip()] = value.lower()
    return found


def _lines(path: Path) -> list[str]:
    with path.open("rb") as stream:
        return stream.read(MAX_CONFIG_BYTES).decode("utf-8", "replace").splitlines()
