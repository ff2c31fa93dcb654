"""Fingerprints for caching: of what a case's files hold, and of what a list of transforms does to them.

Equal fingerprints mean equal results: a file edited in place, another parameter anywhere inside a transform, changed
code of a transform, another version of a library that computes give another fingerprint. Names of files do not matter,
their content does.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import logging
import pickle
import re
import sys
import types
from collections.abc import Iterable, Mapping, Sequence, Set
from enum import Enum
from functools import cache, partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from monai_transfer.errors import InputError
from monai_transfer.files import sha256_file
from monai_transfer.manifest.checksums import sha256_image

__all__ = ["fingerprint_item", "fingerprint_transforms"]

_DISTRIBUTIONS = ("monai-transfer", "monai", "torch", "numpy", "scipy", "nibabel", "itk", "pillow", "pydicom")
# their code is told by their version; that of any other module by its source file
_VERSIONED = {"monai", "torch", "numpy", "scipy", "nibabel", "itk", "PIL", "pydicom"} | sys.stdlib_module_names
_PLAIN = (bool, int, float, complex, str, bytes)
_BY_REPR = (torch.dtype, torch.device, torch.Size, np.dtype, np.generic, range, slice, re.Pattern, PurePath)
_NO_MATTER = (np.random.RandomState, np.random.Generator, torch.Generator, logging.Logger)
_NOTHING = ["-"]
_DETACHED = {".mhd", ".nhdr", ".hdr", ".img"}
_known: dict[str, tuple[Any, str]] = {}


def fingerprint_item(item: Mapping[str, Any]) -> str:
    """SHA-256 of a data list item: paths stand for the content of the file (or DICOM folder), all else for itself.

    A file is read again only where its size, time stamps or inode have changed since this process last read it.

    Args:
        item: of a data list: paths, text, numbers, lists and dictionaries of these.

    Raises:
        InputError: the item holds something that cannot be told apart from other values.

    A file counts by its content, wherever it lies:

    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("a.nii", "b.nii"):
    ...     _ = (folder / name).write_bytes(b"voxels")
    >>> fingerprint_item({"image": str(folder / "a.nii")}) == fingerprint_item({"image": str(folder / "b.nii")})
    True
    """
    return _digest({str(key): _content(value) for key, value in item.items()})


def fingerprint_transforms(transforms: Iterable[Any]) -> str:
    """SHA-256 of transforms with all their parameters, their code, and the versions of the libraries that compute.

    Args:
        transforms: in their order.

    Raises:
        InputError: a transform holds an object whose state cannot be described.

    >>> from monai.transforms import ScaleIntensity, ScaleIntensityRange
    >>> wide, narrow = (ScaleIntensityRange(-1000, top, 0, 1) for top in (1000, 400))
    >>> fingerprint_transforms([wide]) == fingerprint_transforms([ScaleIntensityRange(-1000, 1000, 0, 1)])
    True
    >>> fingerprint_transforms([wide]) == fingerprint_transforms([narrow])  # another window, other voxels
    False
    """
    seen = _Seen()
    return _digest([_versions(), [seen.describe(transform) for transform in transforms]])


def _digest(description: Any) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": ".".join(map(str, sys.version_info[:2]))}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


# ---------------------------------------------------------------------- files
def _content(value: Any) -> Any:
    if isinstance(value, (str, PurePath)):
        path = Path(value)
        try:
            there = path.exists()
        except (OSError, ValueError):  # a text that cannot be a path
            there = False
        if not there:
            return ["text", str(value)]
        bare = path.name == str(value)  # may be a word, such as a class name, that is by chance a file's name too
        return ["file", _sha256(path), str(value) if bare else ""]
    if isinstance(value, (list, tuple)):
        return [_content(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): _content(one) for key, one in value.items()}
    return _Seen().describe(value)


def _sha256(path: Path) -> str:
    files = [path]
    if path.is_dir():
        files = [file for file in path.iterdir() if file.is_file()]
    elif path.suffix.lower() in _DETACHED:  # the voxels lie in another file of the same stem
        files = sorted(path.parent.glob(f"{path.stem}.*"))
    stamps = [(file.name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for file in files for s in [file.stat()]]
    key, stamp = str(path.absolute()), sorted(stamps)
    if _known.get(key, (None, ""))[0] != stamp:
        whole = sha256_image(path) if path.is_dir() else "".join(sha256_file(file) for file in files)
        _known[key] = (stamp, whole)
    return _known[key][1]


# ---------------------------------------------------------------------- objects
class _Seen:
    """Describes objects as JSON; an object met again is a reference to its first description."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.alive: list[Any] = []  # as long as they live, no other object has their id

    def describe(self, value: Any) -> Any:
        if isinstance(value, Enum):
            return ["enum", type(value).__qualname__, value.name]
        if value is None or isinstance(value, _PLAIN):
            return [type(value).__name__, repr(value)]
        if isinstance(value, _BY_REPR) or value is Ellipsis:
            return [type(value).__name__, repr(value)]
        if isinstance(value, _NO_MATTER) or type(value).__module__ == "_thread":
            return _NOTHING
        if id(value) in self.numbers:
            return ["again", self.numbers[id(value)]]
        self.numbers[id(value)] = len(self.numbers)
        self.alive.append(value)
        return self._compound(value)

    def _compound(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy() if value.dtype != torch.bfloat16 else value.detach().float().numpy()
        if isinstance(value, np.ndarray) and value.dtype != object:
            content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
            return ["array", str(value.dtype), list(value.shape), content]
        if isinstance(value, Mapping):
            pairs = [[self.describe(key), self.describe(one)] for key, one in value.items()]
            return ["mapping", sorted(pairs, key=json.dumps)]
        if isinstance(value, Set):
            return ["set", sorted((self.describe(one) for one in value), key=json.dumps)]
        if isinstance(value, partial):
            return ["partial", self.describe(value.func), self.describe(value.args), self.describe(value.keywords)]
        if isinstance(value, types.MethodType):
            return ["method", value.__name__, self.describe(value.__self__)]
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__]
        if isinstance(value, type):
            return ["class", *_classes(value)]
        if isinstance(value, (list, tuple)) or (isinstance(value, Sequence) and not hasattr(value, "__dict__")):
            return ["sequence", [self.describe(one) for one in value]]
        return self._object(value)

    def _function(self, value: types.FunctionType) -> Any:
        name = f"{value.__module__}.{value.__qualname__}"
        if str(value.__module__).split(".")[0] in _VERSIONED and "<lambda>" not in name:
            return ["function", name]
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        used = {key: value.__globals__[key] for key in value.__code__.co_names if key in value.__globals__}
        parts = [value.__defaults__, value.__kwdefaults__, cells, used]
        return ["function", self._code(value.__code__), [self.describe(part) for part in parts]]

    def _code(self, code: types.CodeType) -> Any:
        inner = [self._code(c) if isinstance(c, types.CodeType) else self.describe(c) for c in code.co_consts]
        return [code.co_code.hex(), list(code.co_names), inner]

    def _object(self, value: Any) -> Any:
        state = dict(getattr(value, "__dict__", {}))
        for kind in type(value).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, slot):
                    state[slot] = getattr(value, slot)
        if not state and not inspect.isbuiltin(value) and type(value).__module__ in sys.stdlib_module_names:
            return ["object", type(value).__qualname__, _pickled(value)]
        if inspect.isbuiltin(value):
            return ["builtin", f"{value.__module__}.{value.__qualname__}"]
        described = [[key, self.describe(state[key])] for key in sorted(state)]
        # what does not matter may also come into being by use, such as MONAI's thread-local switches
        return ["object", _classes(type(value)), [pair for pair in described if pair[1] != _NOTHING]]


def _pickled(value: Any) -> str:
    try:
        return hashlib.sha256(pickle.dumps(value)).hexdigest()
    except Exception as error:
        raise InputError(
            f"a transform or item holds a {type(value).__name__}, which cannot be told from another one",
            hint="leave the cache out (cache_dir null)",
        ) from error


def _classes(kind: type) -> list[list[str]]:
    """Names of a class and its bases, with the code of those that no library's version tells."""
    return [
        [f"{one.__module__}.{one.__qualname__}", _source(one.__module__)] for one in kind.__mro__ if one is not object
    ]


@cache
def _source(module: str) -> str:
    if module.split(".")[0] in _VERSIONED:
        return ""
    file = getattr(sys.modules.get(module), "__file__", None)
    return sha256_file(file) if file and Path(file).is_file() else ""
