"""Preprocessing of a description as one ``Compose``, with our checked reader or MONAI's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monai_transfer.bundle_reader.building import build
from monai_transfer.bundle_reader.component import Component

__all__ = ["ImageLoading", "preprocessing"]


@dataclass(frozen=True)
class ImageLoading:
    """How images are read.

    Attributes:
        reader: name of MONAI's reader, ``None`` for its choice by the file.
        mode: ``grey`` or ``rgb`` where pictures are converted, else ``None``.
    """

    reader: str | None = None
    mode: str | None = None


def preprocessing(
    steps: Sequence[Component],
    loading: ImageLoading,
    *,
    channels: int | None,
    device: str = "cpu",
    checked: bool = True,
) -> Any:
    """A ``Compose`` of ``steps``.

    Args:
        steps: transforms, in order.
        loading: how the images are read.
        channels: that the network takes; pictures are read in colour for three.
        device: for transforms that put images on a device.
        checked: read images with ``SafeReader``, which refuses broken files; else with MONAI's own readers.

    Raises:
        InputError: a step cannot be made.
    """
    from monai.transforms import Compose

    share: dict[str, Any] = {}
    return Compose([_step(step, loading, channels, device, checked, share) for step in steps])


def _step(
    step: Component, loading: ImageLoading, channels: int | None, device: str, checked: bool, share: dict[str, Any]
) -> Any:
    if not step.name.startswith("LoadImage"):
        return build(step, device=device, share=share)
    from monai.transforms import LoadImage, LoadImaged

    reader: Any = None
    if checked:
        from monai_transfer.data.readers import SafeReader

        mode: Any = loading.mode or ("rgb" if channels == 3 else None)
        reader = SafeReader(mode=mode)
    elif loading.mode is not None:
        from monai.data import PILReader

        letter = {"grey": "L", "rgb": "RGB"}[loading.mode]
        reader = PILReader(converter=lambda image: image.convert(letter))
    elif loading.reader is not None:
        reader = loading.reader
    allowed = ("keys", "image_only", "ensure_channel_first", "simple_keys", "allow_missing_keys", "dtype")
    arguments = {key: value for key, value in step.arguments.items() if key in allowed}
    if arguments.get("image_only") is False:
        arguments["image_only"] = True  # old bundles; metadata travel with the image
    if step.name == "LoadImage":
        return LoadImage(reader=reader, **{k: v for k, v in arguments.items() if k != "keys"})
    return LoadImaged(reader=reader, **arguments)
