"""Flips at test in ``predict``: the bundle's inferer through mirror images, in the axes that training mirrored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_transfer.data.augmentation.mirroring import mirror_axes
from monai_transfer.errors import InputError
from monai_transfer.safe_parse import read_config, read_json

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


def nnunet_mirror(bundle: str | Path) -> list[int]:
    """The axes that the nnU-Net model was mirrored in, of which a bundle was made; empty where there is none."""
    path = Path(bundle) / "models" / "source.json"
    content = read_json(path) if path.is_file() else {}
    told = content.get("nnunet") if isinstance(content, dict) else None
    axes = told.get("mirror_axes") if isinstance(told, dict) else None
    return [axis for axis in axes if isinstance(axis, int)] if isinstance(axes, list) else []


def add_flips(flow: Any, bundle: str | Path, tta: str, names: list[str], dims: int, *, untouched: bool = False) -> None:
    """Put ``FlipInferer`` around the inferer of an inference workflow that is not yet initialised.

    Where the bundle does not say what it was mirrored in, volumes are mirrored from left to right, unless classes are
    named by side. A bundle made from an nnU-Net model, while it is what it was made from, averages the views that
    nnU-Net does, tile by tile as nnU-Net does.

    Args:
        flow: a MONAI workflow with the id ``inferer``.
        bundle: its folder.
        tta: ``"flips"``.
        names: of the classes.
        dims: of the images.
        untouched: the weights are the bundle's own, not those of a run.

    Raises:
        InputError: another ``tta``; no inferer to go around; or nothing may be mirrored.
    """
    if tta not in TTA:
        raise InputError(f"no test-time augmentation {tta!r}", hint=f"one of {', '.join(TTA)}")
    inferer = flow.parser.config.get("inferer")
    if not isinstance(inferer, dict):
        raise InputError("its inference config has no id inferer", path=bundle, hint="leave --tta out")
    if untouched and "mirror_axes" in inferer and (theirs := nnunet_mirror(bundle)):
        flow.parser["inferer#mirror_axes"] = theirs
        return
    axes = trained_mirror(bundle)
    axes = mirror_axes(dims, names) if axes is None else axes
    if not axes:
        raise InputError("its images may not be mirrored: classes have sides", path=bundle, hint="leave --tta out")
    flow.parser["inferer"] = {
        "_target_": "monai_transfer.testtime.flips.FlipInferer",
        "inferer": inferer,
        "axes": axes,
    }
