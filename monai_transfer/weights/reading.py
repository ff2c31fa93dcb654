"""Reading a checkpoint file without running code from it: ``torch.load(weights_only=True)`` or safetensors.

Every way in which a file can be something else (empty, cut off, a Git LFS pointer, a web page, TorchScript, a pickle
of whole objects) ends in one ``InputError`` that says which, and what to do.
"""

from __future__ import annotations

import argparse
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_transfer.errors import InputError
from monai_transfer.weights.hashes import verify_file
from monai_transfer.weights.tfjs import is_tfjs, read_tfjs

__all__ = ["read_checkpoint"]

_PATHS = ("PosixPath", "PurePosixPath", "PureWindowsPath")
MAX_MEMBERS = 100_000
"""Members of an archive: one for each tensor, some 1,000."""
MAX_UNPACKED = 64 << 20
"""Bytes that an archive may unpack to beyond its own size: weights are stored as they are, small members compressed."""
MAX_PICKLE = 64 << 20
"""Bytes that describe the tensors: some 100 for each."""
MAX_OBJECTS = 2_000_000
"""Objects in a checkpoint, shared ones counted as often as they are met: training states have some 10,000."""
MAX_LEVELS = 100
"""Levels of containers in a checkpoint: training states have about five."""
RESAVE = "open it where its own code is trusted and save `model.state_dict()` alone, best as .safetensors"
AGAIN = "download or copy it again and compare its checksum"

# numpy's own, under whatever name they have today
_scalar, _array = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]

# What training scripts leave beside the weights: numbers and arrays of numpy, their arguments, paths. These are
# containers of plain data, which is unpickled under the same rules, so reading them runs no code of the file's.
_PLAIN: list[Any] = [
    argparse.Namespace,
    *((getattr(pathlib, name), f"{module}.{name}") for name in _PATHS for module in ("pathlib", "pathlib._local")),
    np.dtype,
    np.ndarray,
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *(type(np.dtype(code)) for code in ("?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "e", "f", "d")),
]

_STARTS: dict[bytes, tuple[str, str]] = {
    b"version https://git-lfs": ("is a Git LFS pointer, not the weights", "fetch the file itself with `git lfs pull`"),
    b"<": ("is a web page (HTML or XML), not weights", "the download asked for a login or moved; download it again"),
    b"\x1f\x8b": ("is a gzip archive, not a checkpoint", "unpack it first"),
    b"\x89HDF": ("is an HDF5 file (Keras?), not a PyTorch checkpoint", "convert it to a PyTorch state dict"),
}


def read_checkpoint(path: str | Path) -> tuple[Any, dict[str, str]]:
    """What a checkpoint file holds, and its metadata (safetensors only; else empty).

    Args:
        path: ``.safetensors``, the ``model.json`` of a TensorFlow.js layers model, or anything that ``torch.save``
            wrote, whatever its suffix. Tensors come to the CPU.

    Raises:
        InputError: there is no such file, or it is not a readable checkpoint, or it holds more than plain data.

    >>> import tempfile, torch
    >>> path = Path(tempfile.mkdtemp()) / "theirs.pth"
    >>> torch.save({"state_dict": {"weight": torch.ones(2)}, "epoch": 7}, path)
    >>> read_checkpoint(path)
    ({'state_dict': {'weight': tensor([1., 1.])}, 'epoch': 7}, {})
    """
    path = Path(path)
    if path.is_dir():
        raise InputError("is a folder, not a checkpoint", path=path, hint="name the file in it")
    if not path.is_file():
        raise InputError("there is no such file", path=path, hint="check the path of the weights")
    with path.open("rb") as stream:
        start = stream.read(256)
    if not start:
        raise InputError("is empty (0 bytes)", path=path, hint=AGAIN)
    for sign, (fault, hint) in _STARTS.items():
        if start.lstrip().startswith(sign) if sign == b"<" else start.startswith(sign):
            raise InputError(fault, path=path, hint=hint)
    if is_tfjs(path):
        return read_tfjs(path), {}
    verify_file(path)
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _read_safetensors(path)
    if start.startswith(b"PK"):
        _refuse_other_archives(path)
    try:
        with torch.serialization.safe_globals(_PLAIN):
            content = torch.load(path, map_location="cpu", weights_only=True)
        _refuse_expanded(content, path)
        return content, {}
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from error
    except MemoryError as error:
        raise InputError("does not fit into memory, or is damaged", path=path, hint=AGAIN) from error
    except Exception as error:  # torch raises many kinds for damaged files; each means the same to the user
        raise InputError(f"is cut off or damaged ({_first_line(error)})", path=path, hint=AGAIN) from error


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}, dict(stream.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"is no readable safetensors file ({_first_line(error)})", path=path, hint=AGAIN) from error


def _refuse_other_archives(path: Path) -> None:
    """Zip files that are no state dict: TorchScript, a zipped bundle, a damaged one, a bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            _refuse_bomb(archive, path)
            damaged = archive.testzip()
    except InputError:
        raise
    except Exception as error:  # zipfile and the codecs below it raise many kinds for damaged archives
        raise InputError(f"is cut off or damaged ({_first_line(error)})", path=path, hint=AGAIN) from error
    if damaged:  # torch.load does not look at the checksums that torch.save wrote
        raise InputError(f"is damaged: the checksum of {damaged!r} does not match", path=path, hint=AGAIN)
    if any(re.match(r"[^/]+/(code/|constants\.pkl$)", name) for name in names):
        fault = "is a TorchScript archive: it holds a program, which is not run here to get at its weights"
        raise InputError(fault, path=path, hint=RESAVE.replace("open it", "open it with `torch.jit.load`"))
    if any(name.endswith("configs/metadata.json") for name in names):
        raise InputError("is a zipped MONAI bundle", path=path, hint="unpack it and name the folder")
    if not any(name.endswith("data.pkl") for name in names):
        raise InputError(
            "is a zip archive, but no PyTorch checkpoint", path=path, hint="unpack it and name the weights"
        )


def _refuse_bomb(archive: zipfile.ZipFile, path: Path) -> None:
    """Members that unpack to far more than the file holds; ``torch.save`` stores them as they are."""
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise InputError(f"holds {len(members):,} members, more than {MAX_MEMBERS:,}", path=path, hint=AGAIN)
    real, declared = path.stat().st_size, sum(member.file_size for member in members)
    if declared > real + MAX_UNPACKED:
        fault = f"holds {real:,} bytes that unpack to {declared:,}"
        raise InputError(fault, path=path, hint="no program that saves weights writes such a file; get it again")
    for member in members:
        if member.filename.endswith("data.pkl") and member.file_size > MAX_PICKLE:
            fault = f"describes its tensors in {member.file_size:,} bytes, more than {MAX_PICKLE:,}"
            raise InputError(fault, path=path, hint=AGAIN)


def _refuse_expanded(content: Any, path: Path) -> None:
    """Tensors that claim more elements than the file holds, and containers that hold themselves many times."""
    level, seen = [content], 0
    for _ in range(MAX_LEVELS):
        below: list[Any] = []
        for item in level:
            if isinstance(item, torch.Tensor) and item.layout == torch.strided and item.device.type != "meta":
                if item.numel() * item.element_size() > max(item.untyped_storage().nbytes(), 1):
                    shape = tuple(item.shape)
                    raise InputError(f"holds a tensor of {shape} that is larger than its data", path=path, hint=AGAIN)
            elif isinstance(item, Mapping):
                below += item.values()
            elif isinstance(item, (list, tuple, set)):
                below += item
        seen += len(below)
        if seen > MAX_OBJECTS:
            raise InputError(f"holds more than {MAX_OBJECTS:,} objects", path=path, hint=AGAIN)
        level = below
        if not level:
            return
    raise InputError(f"is nested more than {MAX_LEVELS} levels deep", path=path, hint=AGAIN)


def _refused(path: Path, message: str) -> InputError:
    """``weights_only`` refused: either an object that is no plain data, or bytes that are no pickle."""
    found = re.search(r"(?:GLOBAL|Unsupported (?:global|class):|but got <class) '?([\w.]+)", message)
    if found:
        return InputError(f"holds more than tensors and numbers: a {found[1]!r} object", path=path, hint=RESAVE)
    if "Unsupported operand" in message or "legacy" in message or "magic" in message:
        return InputError("is cut off, damaged, or no PyTorch checkpoint", path=path, hint=AGAIN)
    # not the lines before it, which advise to run whatever the file holds
    reason = _first_line(message.rpartition("WeightsUnpickler error:")[2])
    return InputError(f"cannot be read as plain weights ({reason})", path=path, hint=RESAVE)


def _first_line(error: object) -> str:
    text = str(error).strip().splitlines()
    return text[0][:160].rstrip(".") if text else type(error).__name__
