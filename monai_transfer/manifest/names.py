"""Names in a manifest are one line of readable text: they go into configs, file names, tables, logs and reports.

What a character means to MONAI, a shell or HTML is for the writer of that file to escape; here only what is no name at
all is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from monai_transfer.errors import InputError

__all__ = ["MAX_NAME", "MAX_PATH", "check_names", "name_fault"]

MAX_NAME = 200
"""Characters of a name: the longest class of a public set has 60, and a table must hold several."""


MAX_PATH = 4096
"""Characters of a path: no system opens a longer one."""


def name_fault(name: str) -> str | None:
    """What is wrong with a name, in one clause; ``None`` where nothing is.

    >>> name_fault("lesion $1 @left"), name_fault("lesion\\nimport os")
    (None, 'holds a line break or a control character')
    """
    if not name.strip():
        return "is empty"
    if len(name) > MAX_NAME:
        return f"has {len(name)} characters, more than {MAX_NAME}"
    if any(not c.isprintable() for c in name):
        return "holds a line break or a control character"
    return None


def check_names(content: Mapping[str, Any], items: Iterable[tuple[str, int, Mapping[str, Any]]], path: Any) -> None:
    """Refuse names that are no single line of text.

    Args:
        content: of the manifest.
        items: split, position and item of each case.
        path: of the manifest.

    Raises:
        InputError: names the first one and its place.
    """
    items = list(items)
    for where, name in _names(content, items):
        fault = name_fault(name)
        if fault is not None:
            raise InputError(f"{where} {name[:60]!r} {fault}", path=path, hint="give it a short name on one line")
    for split, i, item in items:
        for key in ("image", "label"):
            named = item.get(key)
            for one in named if isinstance(named, list) else [named]:
                if isinstance(one, str) and len(one) > MAX_PATH:
                    fault = f"{split}[{i}]: the path {one[:60]!r}... has {len(one)} characters, more than {MAX_PATH}"
                    raise InputError(fault, path=path, hint="name a file")


def _names(
    content: Mapping[str, Any], items: Iterable[tuple[str, int, Mapping[str, Any]]]
) -> Iterator[tuple[str, str]]:
    for index, label in (content.get("labels") or {}).items():
        name = label.get("name") if isinstance(label, Mapping) else label
        if isinstance(name, str):
            yield f"the class {index}", name
    for key, what in (("regions", "the region"), ("annotated", "the site")):
        for name in content.get(key) or {}:
            yield what, str(name)
    for index, name in (content.get("channel_names") or {}).items():
        yield f"the channel {index}", str(name)
    modality = content.get("modality")
    for name in modality.values() if isinstance(modality, Mapping) else [modality]:
        if isinstance(name, str) and name:
            yield "the modality", name
    for split, i, item in items:
        for key in ("site", "patient", "case"):
            if isinstance(item.get(key), str) and item[key]:
                yield f"{split}[{i}]: the {key}", item[key]
        images = item["image"] if isinstance(item["image"], list) else [item["image"]]
        for image in images:
            if any(not c.isprintable() for c in Path(str(image)).suffix):
                yield f"{split}[{i}]: the suffix of the image", Path(str(image)).suffix
