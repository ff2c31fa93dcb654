"""Grid: orientation, spacing and size, by values that stand once in a config, so that an override acts everywhere."""

from __future__ import annotations

from typing import Any

from monai_transfer.bundle.configs.emit import note
from monai_transfer.bundle.configs.parts import monai
from monai_transfer.bundle.spec import BundleSpec
from monai_transfer.config_text import ref

__all__ = ["grid", "space"]


def grid(s: BundleSpec) -> dict[str, Any]:
    """The values that ``space`` and the crops refer to, as root ids."""
    out: dict[str, Any] = {}
    if s.spacing and s.kept is None:
        out["spacing"] = note(s.spacing, "mm per axis that images are resampled to")
    if s.image_size:
        out["image_size"] = note(s.image_size, "pixels per axis that every picture is resized to")
    what = "of a patch" if s.dense else "that an image is cut or padded to" if s.crop else "that an image is resized to"
    out["patch"] = note(s.patch, f"voxels per axis {what}")
    return out


def space(s: BundleSpec, keys: list[str], *, alone: bool = False) -> list[Any]:
    """From an image's own grid to the one that the network sees; labels by nearest neighbour.

    Args:
        s: the bundle. keys: of the items that go along.
        alone: for a config that needs MONAI alone.
    """
    if s.kept is not None:
        return s.kept.steps(keys, alone=alone)
    steps: list[Any] = []
    if s.oriented:
        steps.append(monai("transforms.Orientationd", keys=keys, axcodes="RAS", labels=None))
    if s.spacing:
        modes = ["bilinear", "nearest"][: len(keys)]
        steps.append(monai("transforms.Spacingd", keys=keys, pixdim=ref("spacing"), mode=modes))
    if s.image_size:
        modes = ["bilinear", "nearest"][: len(keys)]
        steps.append(monai("transforms.Resized", keys=keys, spatial_size=ref("image_size"), mode=modes))
    if s.crop:
        steps.append(monai("transforms.ResizeWithPadOrCropd", keys=keys, spatial_size=ref("patch")))
    elif s.resize:
        steps.append(monai("transforms.Resized", keys=keys, spatial_size=ref("patch")))
    return steps
