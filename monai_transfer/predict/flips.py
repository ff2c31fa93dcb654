"""Flips at test in ``predict``: the bundle's inferer through mirror images, in the axes that training mirrored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_transfer.data.augmentation.mirroring import mirror_axes
from monai_transfer.errors import InputError
from monai_transfer.safe_parse import read_config

__all__ = ["TTA", "add_flips", "trained_mirror"]

TTA = ("flips",)
"""What ``--tta`` can be."""


def trained_mirror(bundle: str | Path) -> list[int] | None:
    """The axes that a bundle of ours was mirrored in when it was trained (``mirror``); ``None``: it does not say."""
    path = Path(bundle) / "configs" / "train.yaml"
    if not path.is_file():
        return None
    found = read_config(path).get("mirror")
    return [int(axis) for axis in found] if isinstance(found, list) else None


def add_flips(flow: Any, bundle: str | Path, tta: str, names: list[str], dims: int) -> None:
    """Put ``FlipInferer`` around the inferer of an inference workflow that is not yet initialised.

    Where the bundle does not say what it was mirrored in, volumes are mirrored from left to right, unless classes are
    named by side.

    Args:
        flow: a MONAI workflow with the id ``inferer``.
        bundle: its folder.
        tta: ``"flips"``.
        names: of the classes.
        dims: of the images.

    Raises:
        InputError: another ``tta``; no inferer to go around; or nothing may be mirrored.
    """
    if tta not in TTA:
        raise InputError(f"no test-time augmentation {tta!r}", hint=f"one of {', '.join(TTA)}")
    inferer = flow.parser.config.get("inferer")
    if not isinstance(inferer, dict):
        raise InputError("its inference config has no id inferer", path=bundle, hint="leave --tta out")
    axes = trained_mirror(bundle)
    axes = mirror_axes(dims, names) if axes is None else axes
    if not axes:
        raise InputError("its images may not be mirrored: classes have sides", path=bundle, hint="leave --tta out")
    flow.parser["inferer"] = {
        "_target_": "monai_transfer.testtime.flips.FlipInferer",
        "inferer": inferer,
        "axes": axes,
    }
