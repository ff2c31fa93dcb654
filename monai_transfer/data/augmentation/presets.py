"""Augmentation presets: lists of MONAI transform configs, for a bundle or for Python, in millimetres.

| preset | what it does |
|---|---|
| ``none`` | cuts the patch |
| ``light`` | small rotations, mirroring, brightness |
| ``standard`` | rotation, scaling, mirroring, noise, blur, brightness, contrast, low resolution, gamma |
| ``colour`` | ``standard``, hue, saturation and stain; RGB images |
| ``randomised`` | ``light``; half of the cases through a random network (GIN), half of those with contrast inverted |
| ``randomised_all`` | the same of every case: more abroad where nothing there looks like the plain ones, less at home |

``standard`` follows nnU-Net's choice and probabilities, told in space. Where an axis is thin (voxels more than three
times as large as the finest, or a patch of less than a third of the longest), patches turn about that axis alone and
are not scaled along it, so that neighbouring slices are not mixed and no padding comes in. Use a preset behind the
normalisation.

Paper: Isensee et al., nnU-Net, Nature Methods 2021, arXiv:1809.10486
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from monai.transforms import Compose

from monai_transfer.data.augmentation.base import composed
from monai_transfer.errors import InputError
from monai_transfer.tasks import get_task

__all__ = ["PRESETS", "RANDOMISED", "Preset", "as_transforms", "preset", "randomised_parts", "thin_axes"]

RANDOMISED = {"randomised": 0.5, "randomised_all": 1.0}
"""The presets under which contrast means nothing, and the share of the cases that each changes."""

PRESETS = ("none", "light", "standard", "colour", *RANDOMISED)
"""The names of the presets."""

_M, _OURS = "monai.transforms", "monai_transfer.data.augmentation"
_THIN = 3.0  # nnU-Net's threshold
Config = dict[str, Any]


def thin_axes(patch: Sequence[int], spacing: Sequence[float] | None) -> list[int]:
    """Axes of thick slices or of few voxels, about which alone a patch is turned.

    Args:
        patch: voxels per axis.
        spacing: mm per axis; None: equal.

    Example:
        >>> thin_axes((64, 64, 16), (1, 1, 5)), thin_axes((64, 64, 64), (1, 1, 2)), thin_axes((96, 96, 16), None)
        ([2], [], [2])
    """
    spacing = spacing or [1.0] * len(patch)
    return [
        axis
        for axis, (n, mm) in enumerate(zip(patch, spacing, strict=True))
        if mm > _THIN * min(spacing) or _THIN * n < max(patch)
    ]


def preset(
    name: str,
    dims: int,
    spacing: Sequence[float] | None,
    patch: Sequence[int],
    flips: Sequence[int] = (),
    task: str = "segmentation",
    *,
    foreground: float = 0.0,
    image: str = "image",
    label: str = "label",
    allow_missing_keys: bool = False,
    parts: str = "all",
) -> list[Config]:
    """The transforms of a preset, which cut the patch as well, as MONAI configs.

    Args:
        name: one of ``PRESETS``.
        dims: 2 or 3.
        spacing: mm per axis of the images as they arrive here; ``None``: each image's own affine tells (1 for
            pictures).
        patch: voxels per axis of what the network is trained on.
        flips: axes to mirror; see ``mirroring.mirror_axes``.
        task: ``segmentation`` or ``localization`` (the label follows), ``classification``, ``regression`` (never
            scaled: its number may be one of millimetres) or ``self_supervised``.
        foreground: share of the patches about a labelled voxel, for segmentation.
        image, label: keys.
        allow_missing_keys: leave cases without a label as they are.
        parts: ``"geometry"`` (patch and mirroring, for a loader), ``"intensity"`` (the rest, which may run on batches:
            ``engine.batch_augmentation``) or ``"all"``.

    Raises:
        InputError: an unknown preset, or numbers of axes that do not match.

    Example:
        >>> [c["_target_"].rsplit(".")[-1] for c in preset("light", 3, [1, 1, 5], [64, 64, 16], flips=[0])]
        ['RandPhysicalAffined', 'RandFlipd', 'RandScaleIntensityd', 'RandStdShiftIntensityd']
    """
    if name not in PRESETS:
        raise InputError(f"no augmentation preset {name!r}", hint=f"one of {', '.join(PRESETS)}")
    if dims not in (2, 3) or len(patch) != dims or (spacing is not None and len(spacing) != dims):
        raise InputError(
            f"a patch of {len(patch)} axes and a spacing of {len(spacing or patch)} for {dims}D images",
            hint="give one number for each axis",
        )
    if parts not in ("all", "geometry", "intensity"):
        raise InputError(f"no parts {parts!r} of a preset", hint="all, geometry or intensity")
    dense = get_task(task).label.is_path  # a mask turns with its image
    keys = [image, label] if dense else [image]
    given = None if spacing is None else [float(v) for v in spacing]
    chosen: list[Config] = []
    if parts != "intensity":
        cut = _geometry(name, dims, given, list(patch), flips, task, keys)
        chosen.append(cut | ({"label_key": label, "foreground": float(foreground)} if dense else {}))
        mirror = {"_target_": f"{_M}.RandFlipd", "keys": keys, "prob": 0.5}
        chosen += [mirror | {"spatial_axis": int(axis)} for axis in sorted(flips) if name != "none"]
    if parts != "geometry":
        chosen += _intensity(name, image, dims, given)
    if allow_missing_keys:
        for part in chosen:
            if "keys" in part:
                part["allow_missing_keys"] = True
    return chosen


def as_transforms(configs: Sequence[Config]) -> Compose:
    """The transforms that configs describe.

    Args:
        configs: of ``preset``, or any dictionaries with ``_target_``.

    Example:
        >>> import torch
        >>> cut = as_transforms(preset("light", 2, None, [16, 16], task="classification"))
        >>> cut({"image": torch.rand(1, 20, 24)})["image"].shape
        torch.Size([1, 16, 16])
    """
    return composed(configs)


class Preset(Compose):
    """A preset by its name, as one transform: what a bundle's ``augment`` names.

    Args:
        name: one of ``PRESETS``.
        dims, spacing, patch, flips, task, options: as in ``preset``.

    >>> len(Preset("light", 2, None, [16, 16], [0]).transforms)
    4
    """

    def __init__(
        self,
        name: str,
        dims: int,
        spacing: Sequence[float] | None,
        patch: Sequence[int],
        flips: Sequence[int] = (),
        task: str = "segmentation",
        **options: Any,
    ) -> None:
        self.configs = preset(name, dims, spacing, patch, flips, task, **options)
        super().__init__(composed(self.configs).transforms)


def _geometry(
    name: str,
    dims: int,
    spacing: list[float] | None,
    patch: list[int],
    flips: Sequence[int],
    task: str,
    keys: list[str],
) -> Config:
    """The patch's place, rotation and magnification."""
    thin = thin_axes(patch, spacing) if dims == 3 else []
    strong = name in ("standard", "colour")
    # pictures that are mirrored in both axes have no upright
    angle = math.pi if strong and dims == 2 and len(set(flips)) == 2 else 0.52 if strong else 0.26
    rotate = [angle if not thin or axis in thin else 0.0 for axis in range(3)] if dims == 3 else [angle]
    if len(thin) > 1:
        rotate = [0.0, 0.0, 0.0]  # a rod: every turn leaves its long axis
    if name == "none":
        rotate = [0.0] * len(rotate)
    config: Config = {
        "_target_": f"{_OURS}.spatial.RandPhysicalAffined",
        "keys": keys,
        "spatial_size": [int(n) for n in patch],
        "rotate": rotate,
        "rotate_prob": 0.2 if strong else 0.3,
        "spacing": spacing,
        "mode": ["bilinear", "nearest"][: len(keys)],
        # a picture goes on beyond its frame; a volume's ground is 0 or its mean
        "padding_mode": "reflection" if dims == 2 and len(keys) == 2 else "zeros",
    }
    if strong and not get_task(task).label.is_number:  # a size may be what the number says
        config |= {"scale": [0.7, 1.4], "scale_prob": 0.2}
        if thin:
            config["scale_axes"] = [axis for axis in range(dims) if axis not in thin]
    return config


def _intensity(name: str, image: str, dims: int, spacing: list[float] | None) -> list[Config]:
    chosen = _light(image) if name == "light" or name in RANDOMISED else []
    if name in RANDOMISED:
        parts = randomised_parts(image)
        chosen.append({"_target_": f"{_OURS}.mixed.Mixed", "share": RANDOMISED[name], "transforms": parts})
    if name == "colour":
        chosen += _colour(image)
    return chosen + (_standard(image, dims, spacing) if name in ("standard", "colour") else [])


def _light(image: str) -> list[Config]:
    return [
        {"_target_": f"{_M}.RandScaleIntensityd", "keys": [image], "factors": 0.1, "prob": 0.5},
        {"_target_": f"{_M}.RandStdShiftIntensityd", "keys": [image], "factors": 0.1, "prob": 0.5},
    ]


def _standard(image: str, dims: int, spacing: list[float] | None) -> list[Config]:
    finest = min(spacing or [1.0])
    # a blur of .5 to 1 of the finest voxel, round in space: thick slices are hardly blurred across
    sigma = {
        f"sigma_{axis}": [round(0.5 * finest / mm, 4), round(1.0 * finest / mm, 4)]
        for axis, mm in zip("xyz", spacing or [1.0] * dims, strict=False)
    }
    gamma: Config = {
        "_target_": f"{_M}.RandAdjustContrastd",
        "keys": [image],
        "gamma": [0.7, 1.5],
        "retain_stats": True,
    }
    return [
        {"_target_": f"{_OURS}.noise.RandRelativeNoised", "keys": [image], "prob": 0.1, "most": 0.3},
        {"_target_": f"{_M}.RandGaussianSmoothd", "keys": [image], "prob": 0.2, **sigma},
        {"_target_": f"{_M}.RandScaleIntensityd", "keys": [image], "factors": 0.25, "prob": 0.15},
        {
            "_target_": f"{_M}.RandScaleIntensityFixedMeand",
            "keys": [image],
            "factors": 0.25,
            "preserve_range": True,
            "prob": 0.15,
        },
        {
            "_target_": f"{_OURS}.resolution.RandPhysicalLowResolutiond",
            "keys": [image],
            "prob": 0.25,
            "coarsest": 2.0,
            "spacing": spacing,
        },
        gamma | {"prob": 0.1, "invert_image": True},
        gamma | {"prob": 0.3},
    ]


def _colour(image: str) -> list[Config]:
    return [
        {"_target_": f"{_OURS}.stain.RandStaind", "keys": [image], "prob": 0.5, "strength": 0.2},
        {"_target_": f"{_OURS}.hue.RandHued", "keys": [image], "prob": 0.5, "hue": 0.1, "saturation": [0.8, 1.2]},
    ]


def randomised_parts(image: str) -> list[Config]:
    """What the presets ``randomised`` and ``randomised_all`` do to the intensities of a case that it changes.

    Args:
        image: the image's key.

    >>> [(config["_target_"].rpartition(".")[2], config["prob"]) for config in randomised_parts("image")]
    [('RandGINd', 1.0), ('RandContrastInversiond', 0.5)]
    """
    gin: Config = {"_target_": f"{_OURS}.gin.RandGINd", "keys": [image], "prob": 1.0}
    return [
        gin | {"slope": 0.2, "restore": "statistics"},
        {"_target_": f"{_OURS}.inversion.RandContrastInversiond", "keys": [image], "prob": 0.5, "restore": True},
    ]
