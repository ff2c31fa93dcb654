"""What a MONAI bundle does to images between reading and its network, kept in the bundle that is made from it."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_transfer.bundle.kept_pipeline import KeptPipeline
from monai_transfer.bundle_reader import BundleDescription, as_config
from monai_transfer.bundle_reader.component import Component
from monai_transfer.bundle_reader.description import step_kind
from monai_transfer.component_table import share_table
from monai_transfer.config_text import expr
from monai_transfer.errors import InputError, first_cause

__all__ = ["check_parity", "kept_from_bundle", "patch_of"]

_SPATIAL = ("orientation", "spacing", "resize", "crop", "pad")
_OURS = ("load", "type")
"""Kinds of steps that a bundle of ours does in its own way, with the same voxels."""
_PER_KEY = ("mode", "padding_mode", "align_corners", "dtype", "anti_aliasing", "recompute_affine", "diagonal")


def kept_from_bundle(
    found: BundleDescription, *, dense: bool, dims: int, spacing: Sequence[float] | None = None
) -> tuple[KeptPipeline | None, str]:
    """The source's steps and inferer; ``None`` with the reason where they cannot be kept.

    Args:
        found: the source, read.
        dense: the new bundle's network has an output for every voxel.
        dims: spatial dimensions of the data.
        spacing: mm per axis, in place of the source's.
    """
    unread = found.unread_of("preprocessing")
    if unread:
        return None, f"its preprocessing cannot be read without running code ({unread[0]})"
    if not found.preprocessing:
        return None, "its configs define no preprocessing"
    if found.dims is not None and found.dims != dims:
        return None, f"it is {found.dims}D and the data are {dims}D"
    steps = [step for step in found.preprocessing if step_kind(step.name) not in _OURS and not _loads(step)]
    if not dense and not any(step_kind(step.name) == "resize" or step.name.startswith("ResizeWith") for step in steps):
        return None, "it brings images to no common size, which batches of whole images need"
    image, both = [], []
    for step in steps:
        keys = step.arguments.get("keys")
        if step.name.endswith("d") and found.image_key not in ([keys] if isinstance(keys, str) else keys or []):
            continue  # a step for labels
        try:
            config = as_config(step)
        except InputError as error:
            return None, f"{step.name} cannot be taken over ({error.fault})"
        if spacing is not None and step.name == "Spacingd":
            config["pixdim"] = list(spacing)
        if not step.name.endswith("d"):
            return None, f"{step.name} is no transform of dictionaries"
        image.append(_placed(config, step, found, ["image"]))
        spatial = step_kind(step.name) in _SPATIAL or step.name.startswith("Transpose")
        both.append(_placed(config, step, found, ["image", "label"] if spatial else ["image"]))
    inferer: dict[str, Any] = {"_target_": "monai.inferers.SimpleInferer"}
    if dense and found.inferer is not None:
        inferer = as_config(found.inferer)
        if found.inferer.name == "SliceInferer" and dims == 2:  # it cuts volumes only: pictures are its slices
            windows = {key: value for key, value in inferer.items() if key not in ("_target_", "spatial_dim")}
            inferer = {"_target_": "monai.inferers.SlidingWindowInferer", **windows}
    elif dense:
        inferer = {"_target_": "monai.inferers.SlidingWindowInferer", "sw_batch_size": 4, "overlap": 0.25}
    said = f"the source's own inferer and steps ({', '.join(step.name for step in steps) or 'none'})"
    return KeptPipeline(image, both, inferer, said=said, before_inverse=_before_inverse(found)), ""


def _before_inverse(found: BundleDescription) -> list[dict[str, Any]]:
    """Softmax where it stands before the inversion: its order with resampling moves borders."""
    kinds = [step_kind(step.name) for step in found.postprocessing]
    if kinds[:2] != ["activation", "invert"] or found.activation != "softmax":
        return []
    return [as_config(found.postprocessing[0]) | {"keys": "pred"}]


def _loads(step: Component) -> bool:
    return step.name.startswith(("LoadImage", "EnsureChannelFirst"))


def _placed(config: dict[str, Any], step: Component, found: BundleDescription, keys: list[str]) -> dict[str, Any]:
    """A step's config for our keys; of arguments per key that of the image, and the nearest voxel for labels."""
    config = _functions_as_text(config)
    theirs = step.arguments.get("keys")
    at = list(theirs).index(found.image_key) if isinstance(theirs, list | tuple) else 0
    placed = {**config, "keys": keys}
    for name, value in config.items():
        if name in _PER_KEY and isinstance(value, list | tuple) and name != "diagonal":
            placed[name] = value[min(at, len(value) - 1)]
        elif name in ("source_key", "mask_key") and value == found.image_key:
            placed[name] = "image"
    if "label" in keys and step_kind(step.name) in ("spacing", "resize"):
        first = placed.get("mode", "bilinear" if step_kind(step.name) == "spacing" else "area")
        placed["mode"] = [first, "nearest"]
        if isinstance(placed.get("align_corners"), bool):
            placed["align_corners"] = [placed["align_corners"], None]
    return placed


def _functions_as_text(value: Any) -> Any:
    """Functions that were read as arithmetic, as that arithmetic: the new bundle's inference needs MONAI alone."""
    if isinstance(value, list):
        return [_functions_as_text(item) for item in value]
    if not isinstance(value, dict):
        return value
    if str(value.get("_target_", "")).endswith("functions.TensorFunction"):
        return expr(str(value["text"]))
    return {key: _functions_as_text(item) for key, item in value.items()}


def patch_of(found: BundleDescription) -> list[int] | None:
    """Voxels of the source's windows, or of the size that it brings whole images to.

    ``None`` where they are too many to train on: inference takes larger windows than training where it can.
    """
    if found.roi_size:
        most = 128**3 if len(found.roi_size) == 3 else 512**2
        return found.roi_size if math.prod(found.roi_size) <= most else None
    for step in found.preprocessing:
        size = step.arguments.get("spatial_size")
        if step.name.startswith("Resize") and isinstance(size, list | tuple) and all(isinstance(n, int) for n in size):
            return [int(n) for n in size]
    return None


def check_parity(found: BundleDescription, kept: KeptPipeline, image: str | Sequence[str]) -> dict[str, Any]:
    """One image through the source's own steps and through ours: how far they are apart.

    Args:
        found: the source. kept: what was kept of it. image: a file, or one for each channel.

    Returns:
        What was compared and the largest difference, for ``source.json``.

    Raises:
        InputError: the image does not pass the source's steps, or comes out otherwise.
    """
    from monai.bundle import ConfigParser
    from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, LoadImaged
    from monai.transforms.utils import allow_missing_keys_mode

    from monai_transfer.data.readers import SafeReader

    hint = "--preprocessing data fits these steps to your images instead"
    try:
        pipeline = found.build_preprocessing()
        with allow_missing_keys_mode(pipeline):  # a run's steps take the label along
            theirs = pipeline({found.image_key: image})[found.image_key]
    except InputError:
        raise
    except Exception as error:  # whatever a transform says to an image of another kind
        fault = f"an image of these data does not pass the source's preprocessing ({first_cause(error)})"
        raise InputError(fault, path=found.folder, hint=hint) from error
    steps = share_table(ConfigParser({"steps": copy.deepcopy(kept.image)})).get_parsed_content("steps")
    mode: Any = found.loading.mode or ("rgb" if found.in_channels == 3 else None)
    loading = [LoadImaged("image", reader=SafeReader(mode=mode)), EnsureChannelFirstd("image")]
    ours = Compose([*loading, *steps, EnsureTyped("image")])({"image": image})["image"]
    a, b = np.asarray(theirs, dtype=np.float64), np.asarray(ours, dtype=np.float64)
    if a.shape != b.shape:
        fault = f"an image comes out as {b.shape} here and as {a.shape} of the source's own preprocessing"
        raise InputError(fault, path=found.folder, hint=hint)
    apart = float(np.abs(a - b).max()) if a.size else 0.0
    if apart > 1e-3 * max(1.0, float(np.abs(a).max())):
        fault = f"an image comes out otherwise than of the source's own preprocessing (by up to {apart:.3g})"
        raise InputError(fault, path=found.folder, hint=hint)
    return {"compared": "one image through the source's steps as they were read, and through ours", "apart": apart}
