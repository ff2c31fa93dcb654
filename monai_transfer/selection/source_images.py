"""Images prepared as a source's preprocessing says, and labels on the same grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    EnsureChannelFirst,
    EnsureChannelFirstd,
    LoadImage,
    LoadImaged,
    Orientationd,
    ResampleToMatch,
    ScaleIntensityRangePercentilesd,
)
from torch import Tensor

from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError, first_cause

__all__ = ["label_on_grid", "one_line", "prepare_image"]

_FLAT = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def prepare_image(image: str | list[str], preprocessing: Callable[[dict[str, Any]], Any] | None, name: str) -> Tensor:
    """One image as a C x spatial tensor, through ``preprocessing`` or, without one, a plain default.

    Raises:
        InputError: the file cannot be read, or the preprocessing of the source called ``name`` fails on it.
    """
    first = image if isinstance(image, str) else image[0]
    try:
        item = (preprocessing or _default(not first.lower().endswith(_FLAT)))({"image": image})
    except Exception as error:  # MONAI wraps whatever a transform raises
        cause = first_cause(error)
        if isinstance(cause, InputError):
            raise cause from error
        fault = f"the preprocessing of {name} fails on it ({one_line(cause)})"
        raise InputError(fault, path=first, hint="check the file, and that it suits this source") from error
    tensor = item.get("image") if isinstance(item, Mapping) else None
    if not isinstance(tensor, Tensor):
        raise InputError(
            f"the preprocessing of {name} gives no tensor under 'image'",
            hint="name the image with key=, or give the preprocessing yourself",
        )
    return tensor


def label_on_grid(path: str, image: Tensor, *, binary: bool = False) -> Tensor:
    """A label file on the grid of a prepared image (a ``MetaTensor``), as class numbers; spatial.

    Args:
        binary: everything above 0 is class 1 (masks are often written as 0 and 255).
    """
    label = EnsureChannelFirst()(_label_loader()(path))
    matched = ResampleToMatch(mode="nearest", padding_mode="zeros")(label[:1], img_dst=image)
    mask = torch.as_tensor(np.asarray(matched[0])).round().long()
    return (mask > 0).long() if binary else mask


@lru_cache(maxsize=1)
def _label_loader() -> LoadImage:
    """Made once: making one is slow, and says each time which optional readers are missing."""
    return LoadImage(reader=SafeReader(palette="index"), image_only=True)


@lru_cache(maxsize=2)
def _default(volume_like: bool) -> Compose:
    return Compose(
        [
            LoadImaged("image", reader=SafeReader()),
            EnsureChannelFirstd("image"),
            *([Orientationd("image", axcodes="RAS", labels=None)] if volume_like else []),
            ScaleIntensityRangePercentilesd("image", 1, 99, 0, 1, clip=True),
            _as_float,
        ]
    )


def _as_float(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "image": item["image"].float()}


def one_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
