"""``large_files.yml``: where a bundle's weights come from, by URL, checksum and licence. Nothing is downloaded here.

MONAI's file has ``large_files`` (path, url, hash_type, hash_val), which ``python -m monai.bundle download_large_files``
fetches and which admits no further keys: here, the weights that the bundle does not carry. Licence, description and
the origin of weights that it does carry stand beside it under ``sources``, by path.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from monai_transfer.errors import InputError
from monai_transfer.files import write_text
from monai_transfer.safe_parse import read_config

__all__ = ["LargeFile", "find_file", "read_large_files", "write_large_files"]

NAMES = ("large_files.yml", "large_files.yaml", "large_files.json")
_HASHES = ("sha256", "sha512", "sha1", "md5")
UNKNOWN = "unknown"
_HINT = "list path, url, hash_type and hash_val of each file"


@dataclass(frozen=True)
class LargeFile:
    """One weights file of a bundle.

    Attributes:
        path: within the bundle, with ``/``.
        url: where it is published; empty where nobody says.
        hash_type, hash_val: its checksum; empty where nobody says.
        licence: of the file; ``None`` for unknown, which is not free.
        description: what it is and where it comes from.
        origin_sha256: of the published file, where this one was made from it (saved again, fitted).

    >>> import hashlib, tempfile
    >>> path = Path(tempfile.mkdtemp()) / "model.pt"
    >>> _ = path.write_bytes(b"weights")
    >>> LargeFile("models/model.pt", hash_val=hashlib.sha256(b"weights").hexdigest()).fits(path)
    True
    """

    path: str
    url: str = ""
    hash_type: str = "sha256"
    hash_val: str = ""
    licence: str | None = None
    description: str = ""
    origin_sha256: str = ""

    def fits(self, file: Path) -> bool:
        """Whether a file has the checksum; without one, any file of that name has to do."""
        if not self.hash_val:
            return True
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, self.hash_type).hexdigest() == self.hash_val


def read_large_files(bundle: str | Path) -> list[LargeFile]:
    """The large files that a bundle lists; an empty list where it has no such file.

    Args:
        bundle: its folder.

    Raises:
        InputError: the file cannot be read, or an entry has no path, one outside the bundle, or an unknown hash.

    >>> import tempfile
    >>> bundle = Path(tempfile.mkdtemp())
    >>> _ = (bundle / "large_files.yml").write_text("sources: [{path: models/model.pt, licence: MIT}]")
    >>> [(entry.path, entry.licence) for entry in read_large_files(bundle)]
    [('models/model.pt', 'MIT')]
    """
    source = next((Path(bundle) / name for name in NAMES if (Path(bundle) / name).is_file()), None)
    if source is None:
        return []
    content = read_config(source) or {}
    entries: dict[str, dict[str, Any]] = {}
    for part in ("large_files", "sources"):
        listed = content.get(part) if isinstance(content, dict) else None
        if not isinstance(listed or [], list) or any(not isinstance(entry, dict) for entry in listed or []):
            raise InputError(f"{part} is no list of entries", path=source, hint=_HINT)
        for entry in listed or []:
            path = PurePosixPath(str(entry.get("path") or ""))
            if path == PurePosixPath(".") or path.is_absolute() or ".." in path.parts:
                raise InputError(f"an entry has the path {str(entry.get('path'))!r}", path=source, hint=_HINT)
            entries.setdefault(str(path), {}).update({k: v for k, v in entry.items() if v not in (None, "")})
    return [_entry(path, entry, source) for path, entry in entries.items()]


def _entry(path: str, entry: dict[str, Any], source: Path) -> LargeFile:
    value = str(entry.get("hash_val") or entry.get("sha256") or "").lower()
    kind = str(entry.get("hash_type") or "sha256").lower() if entry.get("hash_val") else "sha256"
    if value and kind not in _HASHES:
        raise InputError(f"{path} has a hash of type {kind!r}", path=source, hint=f"use one of {', '.join(_HASHES)}")
    licence = str(entry.get("licence") or entry.get("license") or UNKNOWN)
    return LargeFile(
        path, str(entry.get("url") or ""), kind, value, None if licence.lower() == UNKNOWN else licence,
        str(entry.get("description") or ""), str(entry.get("origin_sha256") or ""),
    )  # fmt: skip


def find_file(bundle: str | Path, entry: LargeFile, folders: Sequence[str | Path] | None = None) -> Path:
    """A local file that is ``entry``: in its place in the bundle, or in one of ``folders``, by name and checksum.

    Args:
        folders: where to look besides; by default the folder that the environment names as ``WEIGHTS_DIR``.
        bundle: its folder.
        entry: one of ``read_large_files``.

    Raises:
        InputError: it is nowhere; says what to download, where to put it, its checksum and its licence.

    >>> import tempfile
    >>> bundle = Path(tempfile.mkdtemp())
    >>> (bundle / "models").mkdir()
    >>> _ = (bundle / "models" / "model.pt").write_bytes(b"weights")
    >>> find_file(bundle, LargeFile("models/model.pt")).name
    'model.pt'
    >>> try:
    ...     find_file(bundle, LargeFile("models/other.pt", url="https://example.org/other.pt"), folders=[])
    ... except InputError as error:
    ...     print("download https://example.org/other.pt" in str(error))
    True
    """
    place = Path(bundle) / entry.path
    if place.is_file():
        return place
    named = os.environ.get("WEIGHTS_DIR")
    looked = [Path(folder) for folder in folders if folder] if folders is not None else [Path(named)] if named else []
    names = {place.name, entry.url.rpartition("/")[2].partition("?")[0]} - {"", "..", "."}
    seen = [file for folder in looked for name in sorted(names) for file in sorted(folder.rglob(glob.escape(name)))]
    for file in seen:
        if file.is_file() and entry.fits(file):
            return file
    others = f"; {seen[0]} has another checksum" if seen else ""
    get = f"download {entry.url}" if entry.url else "get it from whoever made the bundle"
    checksum = f" ({entry.hash_type} {entry.hash_val})" if entry.hash_val else ""
    licence = f", licence {entry.licence}" if entry.licence else ", whose licence the bundle does not say"
    raise InputError(
        f"is not there{others}",
        path=place,
        hint=f"{get}{checksum}{licence}, and put it there, or into a folder named by WEIGHTS_DIR",
    )


def write_large_files(bundle: str | Path, entries: Iterable[LargeFile]) -> None:
    """Write ``large_files.yml``: what is not there and has a URL, for MONAI to fetch; of all, licence and description.

    Call it when the weights that the bundle carries are in their place.

    Args:
        bundle: its folder.
        entries: what it is to list.

    >>> import tempfile
    >>> bundle = Path(tempfile.mkdtemp())
    >>> write_large_files(bundle, [LargeFile("models/model.pt", licence="Apache-2.0")])
    >>> [(entry.path, entry.licence) for entry in read_large_files(bundle)]
    [('models/model.pt', 'Apache-2.0')]
    """
    fetched, sources = [], []
    for e in entries:
        checksum = {"hash_type": e.hash_type, "hash_val": e.hash_val} if e.hash_val else {}
        carried = (Path(bundle) / e.path).is_file()
        if e.url and not carried:
            fetched.append({"path": e.path, "url": e.url} | checksum)
        known = {"description": e.description, "licence": e.licence or UNKNOWN, "origin_sha256": e.origin_sha256}
        known |= {} if e.url and not carried else {"url": e.url} | checksum
        sources.append({"path": e.path} | {key: value for key, value in known.items() if value})
    text = yaml.safe_dump({"large_files": fetched, "sources": sources}, sort_keys=False, allow_unicode=True, width=120)
    write_text(Path(bundle) / NAMES[0], text)
