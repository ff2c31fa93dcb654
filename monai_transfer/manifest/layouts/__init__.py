"""The layouts that a folder may have; one module each."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from monai_transfer.errors import InputError
from monai_transfer.manifest.checks import closest
from monai_transfer.manifest.layouts import (
    beside,
    bids,
    class_folders,
    csv_table,
    dicom,
    existing,
    msd,
    nnunet,
    npz,
    pairs,
    plain,
)

__all__ = ["LAYOUTS", "choose_layout"]

LAYOUTS: dict[str, ModuleType] = {
    "manifest": existing,
    "nnunet": nnunet,
    "msd": msd,
    "bids": bids,
    "dicom": dicom,
    "npz": npz,
    "pairs": pairs,
    "beside": beside,
    "classes": class_folders,
    "csv": csv_table,
    "images": plain,
}
"""By name. ``folders`` on the command line means ``pairs``, ``beside`` or ``classes``, whichever is seen."""

_GROUPS = {"auto": tuple(LAYOUTS), "folders": ("pairs", "beside", "classes")}


def choose_layout(folder: Path, name: str = "auto") -> tuple[str, ModuleType]:
    """The layout called ``name``, or the one that fits the folder best.

    Raises:
        InputError: no such layout, or none fits.
    """
    if name in LAYOUTS:
        return name, LAYOUTS[name]
    if name not in _GROUPS:
        raise InputError(f"no layout is called {name!r}", hint=closest(name, [*LAYOUTS, *_GROUPS]))
    scores = {candidate: LAYOUTS[candidate].detect(folder) for candidate in _GROUPS[name]}
    best = max(scores, key=lambda candidate: scores[candidate])
    if scores[best] <= 0:
        hint = f"it should hold images in one of these ways: {', '.join(LAYOUTS)}"
        raise InputError("no known layout is seen here", path=folder, hint=hint)
    return best, LAYOUTS[best]
