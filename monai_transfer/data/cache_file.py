"""One preprocessed case as a file that holds its voxels and geometry, and nothing that tells whose they are.

A ``MetaTensor`` keeps its affine, the numbers among its metadata and its applied operations, so that inverting works
after reading back. Words of a header, paths and names are left out; the path is put back from the item. What a
transform passed through unchanged (case, patient, site) is not stored either. The first 32 bytes are the SHA-256 of the
rest: a damaged file is noticed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms.utils import reset_ops_id
from monai.utils import ImageMetaKey, MetaKeys

from monai_transfer.errors import InputError
from monai_transfer.files import atomic_path

__all__ = ["read_case", "write_case"]

_WORDS = (str(MetaKeys.SPACE), "modality")  # all other text is left out
_PATH = str(ImageMetaKey.FILENAME_OR_OBJ)


def write_case(path: Path, case: Mapping[str, Any], item: Mapping[str, Any]) -> None:
    """Store ``case``, made of ``item``, under ``path``: complete or not at all, whoever else writes it meanwhile.

    Args:
        path: of the file.
        case: what the transforms made: tensors, numbers, text.
        item: of the data list; what stands in it unchanged is not stored.

    Raises:
        InputError: a value cannot be stored, or the folder cannot be written to.

    >>> import tempfile
    >>> item = {"image": "scan.nii", "case": "c1"}
    >>> path = Path(tempfile.mkdtemp()) / "case"
    >>> write_case(path, {"image": torch.ones(1, 4), "case": "c1"}, item)
    >>> read_case(path, item | {"case": "of another list"})  # the tensors as stored, the rest as the item says
    {'case': 'of another list', 'image': tensor([[1., 1., 1., 1.]])}
    """
    reset = reset_ops_id(dict(case))  # other transform objects, of the same definition, will invert it
    passed = [key for key in case if key in item and _unchanged(case[key], item[key])]
    stored = {str(key): _pack(key, reset[key], item) for key in case if key not in passed}
    buffer = io.BytesIO()
    torch.save({"stored": stored, "passed": [str(key) for key in passed]}, buffer)
    content = buffer.getvalue()
    with atomic_path(path, flush=False) as temporary:  # a damaged one is noticed by its hash and made again
        temporary.write_bytes(hashlib.sha256(content).digest() + content)


def read_case(path: Path, item: Mapping[str, Any]) -> dict[str, Any] | None:
    """The case stored under ``path`` for ``item``; ``None`` where there is none, or only a damaged one.

    Args:
        path: of the file.
        item: of the data list, for what was not stored.

    A damaged file is none: the case is made again.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "case"
    >>> write_case(path, {"image": torch.ones(1, 4)}, {})
    >>> _ = path.write_bytes(path.read_bytes()[:-1])
    >>> print(read_case(path, {}))
    None
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    case = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    found = {key: item[key] for key in case["passed"]}
    return found | {key: _unpack(packed, item) for key, packed in case["stored"].items()}


def _unchanged(value: Any, given: Any) -> bool:
    if value is given:
        return True
    plain = (str, int, float, bool, list, tuple)
    return type(value) is type(given) and isinstance(value, plain) and value == given


def _first_path(value: Any) -> str:
    return str(value[0] if isinstance(value, (list, tuple)) and value else value)


def _pack(key: Any, value: Any, item: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(value, MetaTensor):
        if value.pending_operations:
            raise InputError(
                f"{key!r} has lazy operations pending, which cannot be cached", hint="apply them before (ApplyPendingd)"
            )
        name = value.meta.get(_PATH)
        source = next((str(k) for k, given in item.items() if name and _first_path(given) == str(name)), None)
        return {
            "tensor": value.as_tensor().cpu().clone(),  # of a view, all that it looks into would be saved
            "meta": {str(k): _storable(v, k) for k, v in value.meta.items() if _is_number(v) or str(k) in _WORDS},
            "operations": [_storable(operation, key) for operation in value.applied_operations],
            "spatial_ndim": value.spatial_ndim,
            "path_of": source,
        }
    if isinstance(value, torch.Tensor):
        return {"tensor": value.cpu().clone()}
    return {"value": _storable(value, key)}


def _unpack(packed: Mapping[str, Any], item: Mapping[str, Any]) -> Any:
    if "meta" in packed:
        meta = _restore(packed["meta"])
        if packed["path_of"] is not None:
            meta[_PATH] = _first_path(item[packed["path_of"]])
        operations = [_restore(operation) for operation in packed["operations"]]
        ndim = packed["spatial_ndim"]
        return MetaTensor(packed["tensor"], meta=meta, applied_operations=operations, spatial_ndim=ndim)
    return packed["tensor"] if "tensor" in packed else _restore(packed["value"])


def _is_number(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_number(one) for one in value)
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.kind in "biuf"
    return isinstance(value, (bool, int, float, torch.Tensor))


def _storable(value: Any, key: Any) -> Any:
    """Tensors and Python's own types, which ``weights_only`` reads; arrays are marked."""
    if isinstance(value, Enum):
        return _storable(value.value, key)
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, MetaTensor):
        return value.as_tensor()
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"ndarray": torch.as_tensor(np.ascontiguousarray(value.astype(value.dtype.newbyteorder("="))))}
    if isinstance(value, Mapping):
        return {str(k): _storable(v, key) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_storable(one, key) for one in value) if type(value) in (list, tuple) else list(value)
    raise InputError(f"{key!r} holds a {type(value).__name__}, which cannot be cached", hint="set cache_dir to null")


def _restore(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"ndarray"}:
            return value["ndarray"].numpy()
        return {key: _restore(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_restore(one) for one in value)
    return value
