"""Pictures as grey or in colour: as they are, as the source expects them, or as asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError

__all__ = ["COLOURS", "picture_mode"]

COLOURS = ("red", "green", "blue")
"""Names of the channels of a colour picture."""
_LOOKED = 12


def picture_mode(paths: Sequence[str], asked: str | None, source_channels: int | None, reasons: Reasons) -> str:
    """``grey`` or ``rgb``.

    Args:
        paths: some of the training pictures.
        asked: by the user, ``grey`` or ``rgb``; ``None``: as the pictures are.
        source_channels: of the source's first layer; ``None`` without a source.
        reasons: where the reason goes.

    Raises:
        InputError: something else was asked for, or a picture cannot be read.
    """
    if asked is not None:
        if asked not in ("grey", "rgb"):
            raise InputError(f"--channels {asked}", hint="grey or rgb")
        return str(reasons.add("channels", asked, "as asked"))
    if source_channels in (1, 3):
        mode = "grey" if source_channels == 1 else "rgb"
        return str(reasons.add("channels", mode, f"the source's weights take {source_channels}"))
    reader, coloured = SafeReader(), 0
    looked = list(paths)[:: max(1, len(paths) // _LOOKED)][:_LOOKED]
    for path in looked:
        array = reader.read_volume(path).array
        coloured += int(array.ndim == 3 and np.any(array != array[..., :1]))
    if coloured:
        return str(reasons.add("channels", "rgb", f"{coloured} of {len(looked)} pictures hold colours"))
    return str(reasons.add("channels", "grey", f"{len(looked)} pictures hold no colour"))
