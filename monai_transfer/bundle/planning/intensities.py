"""Normalisation by modality: CT by a window of its foreground, everything else by its own mean and spread."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.data.readers import SafeReader
from monai_transfer.manifest import Case, Manifest
from monai_transfer.tasks import get_task

__all__ = ["foreground_intensities", "is_ct", "normalisation"]

_SAMPLE = 20_000


def is_ct(modality: Any) -> bool:
    """Whether the modality is CT alone, whose numbers mean the same everywhere."""
    return isinstance(modality, str) and re.search(r"\bCT\b", modality) is not None


def foreground_intensities(manifest: Manifest, cases: Sequence[Case]) -> dict[str, float]:
    """Percentiles 0.5 and 99.5, mean and standard deviation of the voxels that a mask marks, over some CT cases.

    Empty for other modalities, or where no mask marks anything: their numbers differ from scan to scan.
    """
    if not is_ct(manifest.modality) or not get_task(manifest.task).dense:
        return {}
    reader, masks = SafeReader(), SafeReader(palette="index")
    drawn = np.random.default_rng(0)
    found = []
    for case in cases:
        if not isinstance(case.label, str) or len(case.images) != 1:
            continue
        image, mask = reader.read_volume(case.images[0]).array, masks.read_volume(case.label).array
        if image.shape == mask.shape:
            inside = np.asarray(image[mask > 0], dtype=np.float64)
            found.append(inside if inside.size <= _SAMPLE else drawn.choice(inside, _SAMPLE, replace=False))
    values = np.concatenate(found) if found else np.zeros(0)
    if values.size < 100 or values.std() == 0:
        return {}
    low, high = np.percentile(values, (0.5, 99.5))
    numbers = {"p0.5": low, "p99.5": high, "mean": values.mean(), "std": values.std()}
    return {key: round(float(value), 4) for key, value in numbers.items()}


def normalisation(
    modality: Any,
    foreground: dict[str, float],
    window: Sequence[float],
    background: float,
    raster: bool,
    reasons: Reasons,
    *,
    colour: bool = False,
) -> list[dict[str, Any]]:
    """Intensity transforms, as configs.

    Args:
        modality: of the manifest.
        foreground: of CT, see ``foreground_intensities``.
        window: medians over the images of their percentiles 0.5 and 99.5.
        background: mean share of voxels that are exactly zero.
        raster: pictures without geometry.
        reasons: where the reason goes.
        colour: pictures with three channels.
    """
    if colour:
        top = 255.0 if window[1] <= 255 else 65535.0
        why = "colours on one fixed scale: a picture's own mean and spread would take its tint away"
        reasons.add("normalise", [0.0, top], why)
        step = {"a_min": 0.0, "a_max": top, "b_min": -2.0, "b_max": 2.0}
        return [{"_target_": "monai.transforms.ScaleIntensityRanged", "keys": ["image"], **step}]
    if is_ct(modality):
        low, high = (foreground["p0.5"], foreground["p99.5"]) if foreground else window
        mean, std = (foreground["mean"], foreground["std"]) if foreground else (low, high - low)
        scaled = {"b_min": round((low - mean) / std, 4), "b_max": round((high - mean) / std, 4)}
        why = (
            "CT: percentiles 0.5 and 99.5 of what the masks mark, then its mean and spread"
            if foreground
            else ("CT: percentiles 0.5 and 99.5 of the images to 0 and 1; no mask tells the foreground")
        )
        reasons.add("normalise", [low, high], why)
        step = {"a_min": low, "a_max": high, **scaled, "clip": True}
        return [{"_target_": "monai.transforms.ScaleIntensityRanged", "keys": ["image"], **step}]
    nonzero = background > 0.2 and not raster
    what = f"; {background:.0%} of the voxels are exactly 0 and left out" if nonzero else ""
    reasons.add("normalise", "z-score", f"each image by its own mean and spread: its numbers have no unit{what}")
    step = {"nonzero": nonzero, "channel_wise": True}
    return [{"_target_": "monai.transforms.NormalizeIntensityd", "keys": ["image"], **step}]
