"""The layouts that a folder may have: every module here but ``base`` is one, and is found by its file's name."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from monai_transfer.errors import InputError, closest

__all__ = ["choose_layout", "layout_names", "load_layout"]

_ALL = "auto"


def layout_names() -> list[str]:
    """The names of all layouts, sorted; nothing is imported for it.

    >>> {"bids", "dicom", "msd", "nnunet"} <= set(layout_names())
    True
    """
    return sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py") if path.stem != "base")


def load_layout(name: str) -> ModuleType:
    """The module of a layout: ``detect``, ``read`` and, where it differs from the rest, what ``base`` describes.

    Args:
        name: one of ``layout_names()``.

    >>> load_layout("bids").detect(Path("nowhere"))  # how well a folder fits, 0 to 1
    0.0
    """
    return importlib.import_module(f"{__name__}.{name}")


def groups() -> dict[str, list[str]]:
    """Names that mean whichever of several layouts is seen: ``auto`` is all, others are the modules' ``GROUP``."""
    found: dict[str, list[str]] = {_ALL: layout_names()}
    for name in layout_names():
        group = getattr(load_layout(name), "GROUP", None)
        if group:
            found.setdefault(group, []).append(name)
    return found


def choose_layout(folder: Path, name: str = _ALL) -> tuple[str, ModuleType]:
    """The layout called ``name``, or the one that fits the folder best.

    Args:
        folder: to look into.
        name: of a layout, or of a group of them (``auto``: all).

    Raises:
        InputError: no such layout, or none fits.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("imagesTr", "labelsTr"):
    ...     (folder / name).mkdir()
    >>> _ = (folder / "dataset.json").write_text('{"training": [], "labels": {}, "modality": {}}')
    >>> choose_layout(folder)[0]
    'msd'
    """
    if name in layout_names():
        return name, load_layout(name)
    of = groups()
    if name not in of:
        raise InputError(f"no layout is called {name!r}", hint=closest(name, [*layout_names(), *of]))
    scores = {candidate: load_layout(candidate).detect(folder) for candidate in of[name]}
    best = max(scores, key=lambda candidate: scores[candidate])
    if scores[best] <= 0:
        hint = f"it should hold images in one of these ways: {', '.join(layout_names())}"
        raise InputError("no known layout is seen here", path=folder, hint=hint)
    return best, load_layout(best)
