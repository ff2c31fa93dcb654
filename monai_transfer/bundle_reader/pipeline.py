"""Preprocessing of a description as one ``Compose``, with our checked reader or MONAI's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monai_transfer.bundle_reader.component import Component
from monai_transfer.errors import InputError

if TYPE_CHECKING:
    from monai_transfer.bundle_reader.description import BundleDescription

__all__ = ["preprocessing"]


def preprocessing(described: BundleDescription, *, device: str = "cpu", checked: bool = True) -> Any:
    """See ``BundleDescription.build_preprocessing``."""
    from monai.transforms import Compose

    unread = described.unread_of("preprocessing")
    if unread:
        hint = "--trust-source runs the bundle's own code, if you trust its author"
        raise InputError(f"the preprocessing cannot be read ({unread[0]})", path=described.folder, hint=hint)
    if not described.preprocessing:
        raise InputError("the bundle's configs define no preprocessing", path=described.folder)
    share: dict[str, Any] = {}
    return Compose([_step(step, described, device, checked, share) for step in described.preprocessing])


def _step(step: Component, described: BundleDescription, device: str, checked: bool, share: dict[str, Any]) -> Any:
    if not step.name.startswith("LoadImage"):
        return step.build(device=device, share=share)
    from monai.transforms import LoadImage, LoadImaged

    reader: Any = None
    if checked:
        from monai_transfer.data.readers import SafeReader

        mode: Any = described.loading.mode or ("rgb" if described.in_channels == 3 else None)
        reader = SafeReader(mode=mode)
    elif described.loading.mode is not None:
        from monai.data import PILReader

        letter = {"grey": "L", "rgb": "RGB"}[described.loading.mode]
        reader = PILReader(converter=lambda image: image.convert(letter))
    elif described.loading.reader is not None:
        reader = described.loading.reader
    allowed = ("keys", "image_only", "ensure_channel_first", "simple_keys", "allow_missing_keys", "dtype")
    arguments = {key: value for key, value in step.arguments.items() if key in allowed}
    if arguments.get("image_only") is False:
        arguments["image_only"] = True  # old bundles; metadata travel with the image
    if step.name == "LoadImage":
        return LoadImage(reader=reader, **{k: v for k, v in arguments.items() if k != "keys"})
    return LoadImaged(reader=reader, **arguments)
