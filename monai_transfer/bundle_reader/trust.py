"""The one decision to run a bundle's own code: asked for with ``--trust-source``, remembered by the code's hash.

A decision is about files, not about a folder: it holds for this user as long as not a byte of the bundle's configs,
scripts and Python files has changed, and it goes with what was made (``source.json``, ``run.json``) as a hash.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from monai_transfer.bundle_reader.component import Unread
from monai_transfer.errors import InputError
from monai_transfer.files import sha256_file, write_json
from monai_transfer.safe_parse import read_mapping

__all__ = ["Trust", "code_sha256", "decide", "scripts_folder", "untrusted"]

log = logging.getLogger("monai_transfer")
MAX_FILES = 5000
"""Files of code in a bundle: the largest of the model zoo has some 60."""
MAX_FOLDERS = 20_000
"""Folders of a bundle, its runs included: a link to ``/`` would be followed through the whole disk."""
_MODULES = (".py", ".so", ".pyd", ".pyc")
"""What Python imports, from any folder of the bundle."""
_CODE = (*_MODULES, ".json", ".yaml", ".yml", ".conf")
_MADE_LATER = ("runs", "predictions", "models")
"""Folders whose records and reports come and go; modules in them count."""


@dataclass(frozen=True)
class Trust:
    """A user's decision to run the code of one bundle.

    Attributes:
        folder: the bundle.
        sha256: of its code, see ``code_sha256``.
    """

    folder: Path
    sha256: str

    def record(self) -> dict[str, str]:
        """What stands in ``source.json`` and ``run.json``."""
        return {"bundle": self.folder.resolve().name, "code_sha256": self.sha256}


def scripts_folder(folder: str | Path) -> Path:
    """The bundle whose ``scripts/`` a bundle or run folder uses: itself, or of a run the bundle that it lies in."""
    folder = Path(folder)
    home = folder.resolve().parent.parent
    is_run = (folder / "run.json").is_file() and not (folder / "scripts").is_dir()
    return home if is_run and (home / "scripts").is_dir() and (home / "configs").is_dir() else folder


def code_sha256(folder: str | Path) -> str:
    """One SHA-256 of all files of a bundle that can be code: configs, scripts, Python files; their names count.

    What lies behind links counts as if it lay here. Compiled code in ``__pycache__`` is never used (``own_scripts``).
    Of a run folder, the scripts of the bundle that it lies in count as well.

    Raises:
        InputError: there are implausibly many, or one cannot be read.
    """
    folder = Path(folder)
    digest = hashlib.sha256()
    for path in sorted(_files_of_code(folder)):
        if path.is_file():
            digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\n".encode())
    home = scripts_folder(folder)
    if home != folder:
        digest.update(code_sha256(home).encode())
    return digest.hexdigest()


def _files_of_code(folder: Path) -> list[Path]:
    files: list[Path] = []
    seen: set[str] = set()
    for root, names, found in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # a link that leads back
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(name for name in names if name != "__pycache__")
        inside = Path(root).relative_to(folder).parts
        kinds = _MODULES if inside and inside[0] in _MADE_LATER else _CODE
        files += [Path(root) / name for name in found if Path(name).suffix.lower() in kinds]
        if len(files) > MAX_FILES or len(seen) > MAX_FOLDERS:
            fault = f"holds more than {MAX_FILES} files of code, or {MAX_FOLDERS} folders"
            raise InputError(fault, path=folder, hint="name the bundle's folder")
    return files


def decide(folder: str | Path, trust_source: bool = False) -> Trust | None:
    """The decision about a bundle: made now with ``trust_source``, else the remembered one, else ``None``.

    Args:
        folder: the bundle.
        trust_source: run its code, now and later, as long as it stays as it is.

    Raises:
        InputError: the bundle's files cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return None
    known = _known()
    if not trust_source and not known:
        return None
    sha256 = code_sha256(folder)
    if trust_source and sha256 not in known:
        known[sha256] = {"bundle": folder.resolve().name, "since": datetime.now(UTC).date().isoformat()}
        _remember(known)
    return Trust(folder, sha256) if trust_source or sha256 in known else None


def untrusted(folder: str | Path, unread: Sequence[Unread], what: str = "") -> InputError:
    """The error that asks for the decision: what needs the bundle's code, and why.

    Args:
        folder: the bundle.
        unread: what could not be read; the first ones are named.
        what: the part that is needed, in words.
    """
    named = "; ".join(str(item) for item in list(unread)[:2])
    more = f", and {len(unread) - 2} more" if len(unread) > 2 else ""
    part = f"its {what} needs" if what else "it needs"
    return InputError(
        f"{part} code of its own, which is not run ({named or 'nothing of it could be read'}{more})",
        path=folder,
        hint="if you trust its author, --trust-source (trust_source=True) runs it and remembers these files",
    )


def _store() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or (os.environ.get("APPDATA") if os.name == "nt" else None)
    return Path(base or Path.home() / ".config") / "monai-transfer" / "trusted.json"


def _known() -> dict[str, dict[str, str]]:
    path = _store()
    try:
        content = read_mapping(path) if path.is_file() else {}
    except InputError as error:
        log.warning("what was trusted before is not known any more (%s)", error)
        return {}
    return {key: value for key, value in content.items() if isinstance(value, dict)}


def _remember(known: dict[str, dict[str, str]]) -> None:
    path = _store()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_json(path, json.loads(json.dumps(known)))
    except (OSError, InputError) as error:
        log.warning("the decision cannot be remembered (%s); it holds for this call", error)
