"""Normalisation by modality, channel by channel: CT by a window of its foreground, else by own mean and spread."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.data.readers import SafeReader
from monai_transfer.manifest import Case, Manifest
from monai_transfer.tasks import get_task

__all__ = ["by_channel", "channel_modalities", "foreground_intensities", "is_ct", "normalisation"]

_SAMPLE = 20_000


def is_ct(modality: Any) -> bool:
    """Whether the modality is CT alone, whose numbers mean the same everywhere.

    >>> is_ct("CT"), is_ct("CT, portal venous"), is_ct("PET/CT"), is_ct("MR")
    (True, True, False, False)
    """
    return (
        isinstance(modality, str)
        and re.search(r"\bCT\b", modality, re.IGNORECASE) is not None
        and re.search(r"\b(PET|PT|MRI?|SPECT|US)\b", modality, re.IGNORECASE) is None
    )


def channel_modalities(manifest: Manifest, channels: int) -> list[str]:
    """The modality of each channel: what the manifest says of it by number, else its name, else the manifest's own.

    nnU-Net's convention: a channel called CT holds Hounsfield units, any other one is normalised by itself.
    """
    names = [str(name) for name in manifest.channel_names.values()]
    told = manifest.modality
    if isinstance(told, dict):
        words = [str(value) for value in told.values()]
        return words if len(words) == channels else [""] * channels
    if channels == 1:
        return [str(told or (names[0] if names else ""))]
    if is_ct(told) or len(names) != channels:
        return [str(told or "")] * channels
    return names


def foreground_intensities(manifest: Manifest, cases: Sequence[Case], channels: int = 1) -> list[dict[str, float]]:
    """By channel, of CT: percentiles 0.5 and 99.5, mean and standard deviation of the voxels that a mask marks.

    Where no mask marks anything they are of all voxels. Empty for other modalities, whose numbers differ from scan to
    scan.

    Args:
        manifest, cases: some of its cases.
        channels: of an image as the network sees it.
    """
    ct = [n for n, modality in enumerate(channel_modalities(manifest, channels)) if is_ct(modality)]
    found: dict[int, list[Any]] = {n: [] for n in ct}
    if not ct or not get_task(manifest.task).dense:
        return [{} for _ in range(channels)]
    reader, masks = SafeReader(), SafeReader(palette="index")
    drawn = np.random.default_rng(0)
    for case in cases:
        if not isinstance(case.label, str):
            continue
        mask = masks.read_volume(case.label).array
        for n in ct:
            image = _channel(reader, case, n, mask.ndim)
            if image is not None and image.shape == mask.shape:
                inside = np.asarray(image[mask > 0], dtype=np.float64)
                found[n].append(inside if inside.size <= _SAMPLE else drawn.choice(inside, _SAMPLE, replace=False))
    return [_numbers(found[n]) if n in found else {} for n in range(channels)]


def _channel(reader: SafeReader, case: Case, number: int, dims: int) -> Any:
    """One channel of a case, from its own file or out of an image with several; ``None`` where it has none."""
    if len(case.images) > 1:
        return reader.read_volume(case.images[number]).array if number < len(case.images) else None
    image = reader.read_volume(case.images[0]).array
    if image.ndim == dims:
        return image if number == 0 else None
    return image[..., number] if image.ndim == dims + 1 and number < image.shape[-1] else None


def _numbers(found: list[Any]) -> dict[str, float]:
    values = np.concatenate(found) if found else np.zeros(0)
    if values.size < 100 or values.std() == 0:
        return {}
    low, high = np.percentile(values, (0.5, 99.5))
    numbers = {"p0.5": low, "p99.5": high, "mean": values.mean(), "std": values.std()}
    return {key: round(float(value), 4) for key, value in numbers.items()}


def by_channel(
    modalities: Sequence[str], foregrounds: Sequence[dict[str, float]], background: float, reasons: Reasons
) -> list[dict[str, Any]] | None:
    """Each channel by its own modality, as MONAI configs: taken apart, normalised, put together again.

    ``None`` where all channels are alike: one transform does.

    Args:
        modalities: of the channels.
        foregrounds: of CT, see ``foreground_intensities``.
        background: mean share of voxels that are exactly zero.
        reasons: where the reason goes.
    """
    if len({is_ct(one) for one in modalities}) < 2 and not (is_ct(modalities[0]) and len(modalities) > 1):
        return None
    keys = [f"image_{n}" for n in range(len(modalities))]
    steps: list[dict[str, Any]] = [{"_target_": "monai.transforms.SplitDimd", "keys": ["image"]}]
    said = []
    for key, modality, numbers in zip(keys, modalities, foregrounds, strict=True):
        if is_ct(modality) and not numbers:
            return None  # no mask tells the foreground
        if is_ct(modality):
            steps.append(_window(key, numbers["p0.5"], numbers["p99.5"], numbers["mean"], numbers["std"]))
            said.append(f"{modality} {numbers['p0.5']:g} to {numbers['p99.5']:g}")
        else:
            nonzero = background > 0.2
            steps.append({"_target_": "monai.transforms.NormalizeIntensityd", "keys": [key], "nonzero": nonzero})
            said.append(f"{modality or key} z-score")
    steps += [
        {"_target_": "monai.transforms.ConcatItemsd", "keys": keys, "name": "image"},
        {"_target_": "monai.transforms.DeleteItemsd", "keys": keys},
    ]
    why = (
        "each channel by its own modality: CT by percentiles 0.5 and 99.5 of what the masks mark, then their mean and "
        "spread; what has no unit by each image's own mean and spread"
    )
    reasons.add("normalise", said, why)
    return steps


def _window(key: str, low: float, high: float, mean: float, std: float) -> dict[str, Any]:
    scaled = {"b_min": round((low - mean) / std, 4), "b_max": round((high - mean) / std, 4)}
    step = {"a_min": low, "a_max": high, **scaled, "clip": True}
    return {"_target_": "monai.transforms.ScaleIntensityRanged", "keys": [key], **step}


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
        why = (
            "CT: percentiles 0.5 and 99.5 of what the masks mark, then its mean and spread"
            if foreground
            else ("CT: percentiles 0.5 and 99.5 of the images to 0 and 1; no mask tells the foreground")
        )
        reasons.add("normalise", [low, high], why)
        return [_window("image", low, high, mean, std)]
    nonzero = background > 0.2 and not raster
    what = f"; {background:.0%} of the voxels are exactly 0 and left out" if nonzero else ""
    reasons.add("normalise", "z-score", f"each image by its own mean and spread: its numbers have no unit{what}")
    step = {"nonzero": nonzero, "channel_wise": True}
    return [{"_target_": "monai.transforms.NormalizeIntensityd", "keys": ["image"], **step}]
