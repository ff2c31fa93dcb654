"""Writing files so that nothing is lost: a temporary name, checked, flushed to disk, then renamed over the old one.

The package writes files through this module alone. What cannot be written (full disk, quota, size limit, read-only
or vanished folder) is one ``InputError`` that names the file; the old file stays as it was. A temporary file carries
the number of its process, so that those of dead writers are cleared by the next one that writes beside them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError, OutputError
from monai_transfer.stopping import at_stop

__all__ = [
    "atomic_folder",
    "atomic_path",
    "clear_leftovers",
    "make_folder",
    "move_file",
    "no_room",
    "sha256_file",
    "unwritable",
    "write_bytes",
    "write_json",
    "write_text",
]

_HINTS = {
    errno.ENOSPC: "make room there, or name another place",
    errno.EDQUOT: "make room within the quota, or name another place",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or name another place",
    errno.EROFS: "name a place that can be written to",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.ENOENT: "its folder has gone: was it deleted or unmounted meanwhile?",
    errno.ESTALE: "its network share has gone: mount it again",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.ENAMETOOLONG: "give a shorter name",
}
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
_LEFTOVER = re.compile(r"^\..*\.([0-9a-f]{6})-(\d+)-\d+\.tmp(\..+)?$")
_OLD_LEFTOVER = re.compile(r"^\..*\.(\d+)\.tmp(\..+)?$")  # of version 0.1
_FOREIGN = 86400.0
"""Seconds after which a temporary file of another host counts as left over."""

_numbers = itertools.count()
_swept: set[str] = set()


def unwritable(path: str | Path, error: OSError, hint: str | None = None) -> OutputError:
    """The error for a file or folder that cannot be written, with what to do about it (``hint``: in place of that)."""
    reason = (error.strerror or type(error).__name__).lower()
    return OutputError(f"cannot be written ({reason})", path=path, hint=hint or _HINTS.get(error.errno or 0))


@contextmanager
def atomic_path(path: str | Path, check: Callable[[Path], None] | None = None, *, flush: bool = True) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; renamed onto ``path`` when the block ends without an error.

    The file and its folder are flushed to disk (fsync), so a crash leaves either the old file or the new one.
    The temporary name keeps the suffix, since many writers choose their format by it.

    Args:
        path: the file to write; its folder is made where it is missing.
        check: called with the temporary file before it is renamed; raises where it is not what was to be written.
        flush: whether to wait until the disk has it. Not for the many small files that the same command makes again.

    Raises:
        InputError: the file cannot be written, or the block wrote nothing.

    >>> import tempfile
    >>> from pathlib import Path
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path = Path(path)
    make_folder(path.parent)
    _sweep(path.parent)
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    stem = path.name.removesuffix(suffix)
    stem = stem.encode()[:120].decode(errors="ignore")  # the whole name may be as long as a name can be
    temporary = path.with_name(f".{stem}.{_HOST}-{os.getpid()}-{next(_numbers)}.tmp{suffix}")
    with at_stop(lambda: temporary.unlink(missing_ok=True)):
        try:
            yield temporary
            _keep(temporary, path, check, flush)
        except InputError:
            raise
        except OSError as error:
            if error.filename is not None and Path(os.fsdecode(error.filename)) not in (temporary, path, path.parent):
                raise  # of something else that was read or written within the block
            raise unwritable(path, error) from error
        except Exception as error:  # C++ writers raise kinds of their own when the disk is full
            fault = no_room(temporary)
            if fault is None:
                raise
            raise unwritable(path, fault) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _keep(temporary: Path, path: Path, check: Callable[[Path], None] | None, flush: bool) -> None:
    if flush:
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())  # some file systems tell of a full disk or quota only here
    if check is not None:
        check(temporary)
    temporary.replace(path)
    if not flush:
        return
    with contextlib.suppress(OSError):  # some network shares cannot flush a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` to fill; renamed to ``path`` when the block ends without an error.

    Raises:
        InputError: it cannot be written, or ``path`` is there already.
    """
    path = Path(path)
    make_folder(path.parent)
    _sweep(path.parent)
    temporary = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{next(_numbers)}.tmp")
    with at_stop(lambda: shutil.rmtree(temporary, ignore_errors=True)):
        try:
            temporary.mkdir()
            yield temporary
            for place, _, names in os.walk(temporary):
                for name in names:
                    with Path(place, name).open("rb") as stream:
                        os.fsync(stream.fileno())
            temporary.rename(path)
        except (OSError, shutil.Error) as error:
            fault = error if isinstance(error, OSError) and error.errno else no_room(temporary)
            if fault is None:
                raise
            raise unwritable(path, fault) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def no_room(temporary: Path) -> OSError | None:
    """Why nothing more can be written where a file lies, or ``None``: asked after somebody else's writer has failed."""
    size = temporary.stat().st_size if temporary.exists() else 0
    with contextlib.suppress(ImportError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit != resource.RLIM_INFINITY and size >= limit - 65536:
            return OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    probe = temporary.with_name(f"{temporary.name}.probe")
    try:
        with probe.open("wb") as stream:
            stream.write(bytes(65536))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return None


def move_file(source: str | Path, path: str | Path, check: Callable[[Path], None] | None = None) -> Path:
    """Bring a file that something else wrote to its place: checked, flushed, renamed (on the same file system).

    Raises:
        InputError: it is not whole, or cannot be moved there.
    """
    source, path = Path(source), Path(path)
    make_folder(path.parent)
    try:
        _keep(source, path, check, flush=True)
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def make_folder(path: str | Path) -> Path:
    """Make a folder and those above it, where they are missing.

    Raises:
        InputError: it cannot be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError("is a file, and a folder is needed", path=path, hint="name another place") from error
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def _sweep(folder: Path) -> None:
    """Once per process and folder: what writers left there that are no more."""
    key = str(folder)
    if key not in _swept:
        _swept.add(key)
        clear_leftovers(folder, deep=False)


def clear_leftovers(folder: str | Path, deep: bool = True) -> list[Path]:
    """Delete the temporary files of dead writers in a folder, and below it where ``deep``; returns what was deleted."""
    gone = []
    for place, below, names in os.walk(folder):
        for name in [*names, *below]:
            if not name.startswith(".") or ".tmp" not in name:
                continue
            path = Path(place, name)
            found, old = _LEFTOVER.match(name), _OLD_LEFTOVER.match(name)
            with contextlib.suppress(OSError):
                if found and found[1] != _HOST:
                    dead = time.time() - path.stat().st_mtime > _FOREIGN
                else:
                    number = int(found[2]) if found else int(old[1]) if old else None
                    dead = number is not None and not _writes(number, path.stat().st_mtime)
                if dead:
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink()
                    gone.append(path)
        if not deep:
            break
    return gone


def _writes(process: int, changed: float) -> bool:
    """Whether the process that wrote a file then is still there (and not another one that got its number)."""
    if process == os.getpid():
        return True
    import psutil

    try:
        other = psutil.Process(process)
        return other.status() != psutil.STATUS_ZOMBIE and other.create_time() <= changed + 1
    except psutil.Error:
        return False


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content``, atomically.

    Raises:
        InputError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically.

    Raises:
        InputError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically.

    Raises:
        InputError: it cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=2, ensure_ascii=False)  # bit by bit: a manifest of 100,000 cases is long
        stream.write("\n")


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal text."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
