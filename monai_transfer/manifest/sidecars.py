"""The JSON files beside BIDS images: scanner fields as sites, never what would identify a patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError, closest
from monai_transfer.manifest.layouts.base import stem
from monai_transfer.safe_parse import read_json

__all__ = ["sidecar_fields", "sidecar_site"]

# dcm2niix -ba n writes these; dates would tell a patient apart, too
_IDENTIFYING = re.compile(r"patient|birth|accession|date|time$|operator|physician|uid$|studyid|address", re.IGNORECASE)
_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9]+)")


def sidecar_fields(image: Path, root: Path) -> dict[str, Any]:
    """The fields that hold for an image: of every JSON file of its suffix whose entities are the image's, the nearest
    file last.

    Args:
        image: an image file below ``root``.
        root: folder of the BIDS set.

    Raises:
        InputError: a file is not JSON.
    """
    name, _, suffix = stem(image).rpartition("_")
    entities = set(_ENTITY.findall(name))
    fields: dict[str, Any] = {}
    for folder in [parent for parent in reversed(image.parents) if parent.is_relative_to(root)]:
        fitting = []
        for path in sorted(folder.glob("*.json")):
            front, _, end = path.stem.rpartition("_")
            if end == suffix and set(_ENTITY.findall(front)) <= entities:
                fitting.append((len(_ENTITY.findall(front)), path))
        for _, path in sorted(fitting):
            content = read_json(path)
            fields |= content if isinstance(content, dict) else {}
    return fields


def sidecar_site(image: Path, root: Path, keys: Sequence[str]) -> str:
    """The site of an image: the values of ``keys`` in its sidecars, joined; ``unknown`` where one is not given.

    Raises:
        InputError: a key would identify a patient, or no sidecar of this image has any of the keys.
    """
    for key in keys:
        if _IDENTIFYING.search(key):
            hint = "use what tells the scanner, e.g. Manufacturer,ManufacturersModelName,MagneticFieldStrength"
            raise InputError(f"--site-from: {key} would identify patients", hint=hint)
    fields = sidecar_fields(image, root)
    if fields and not any(key in fields for key in keys):
        known = [name for name in fields if not _IDENTIFYING.search(name)]
        raise InputError(f"its JSON files have no {keys[0]!r}", path=image, hint=closest(keys[0], known))
    values = [str(fields.get(key, "unknown")).strip() or "unknown" for key in keys]
    return re.sub(r"[^A-Za-z0-9._+=@-]+", "_", "_".join(values))
