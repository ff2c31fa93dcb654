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


def bundle_licence(folder: Path, metadata: Mapping[str, Any]) -> str | None:
    """From the metadata, else recognised in the bundle's LICENSE file, else that file's first line."""
    for key in ("licence", "license"):
        if isinstance(metadata.get(key), str):
            return metadata[key]
    names = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    for pattern, name in _LICENCES.items():
        if re.search(pattern, text[:4000], re.IGNORECASE):
            return name
    return next((line.strip()[:80] for line in text.splitlines() if line.strip()), None)
