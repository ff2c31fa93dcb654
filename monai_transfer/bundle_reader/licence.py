"""The licence that a bundle states, in its metadata or as a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["bundle_licence"]

_LICENCES = {
    r"apache license,?\s+version 2": "Apache-2.0",
    r"mit license|permission is hereby granted, free of charge": "MIT",
    r"attribution-noncommercial-sharealike 4": "CC BY-NC-SA 4.0",
    r"attribution-noncommercial 4": "CC BY-NC 4.0",
    r"attribution-sharealike 4": "CC BY-SA 4.0",
    r"attribution 4": "CC BY 4.0",
    r"non-?commercial": "a non-commercial licence",
    r"redistribution and use in source and binary forms": "BSD",
}


_READ = 1 << 16
"""Bytes of the file that are looked at: the longest licences have some 35 kB."""


def bundle_licence(folder: Path, metadata: Mapping[str, Any]) -> str | None:
    """From the metadata, else recognised in the bundle's LICENSE file, else that file's first line."""
    for key in ("licence", "license"):
        if isinstance(metadata.get(key), str):
            return metadata[key]
    names = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
    files = [folder / name for name in names if (folder / name).is_file()]
    path = next((file for file in files if file.resolve().is_relative_to(folder.resolve())), None)
    if path is None:  # a link may lead to any file of the user's, whose first line would be shown
        return None
    with path.open("rb") as stream:
        text = stream.read(_READ).decode("utf-8", "replace")
    for pattern, name in _LICENCES.items():
        if re.search(pattern, text[:4000], re.IGNORECASE):
            return name
    return next((line.strip()[:80] for line in text.splitlines() if line.strip()), None)
