"""Pictures as grey or in colour: as they are, as the source expects them, or as asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from monai_transfer.bundle.planning.reasons import Reasons
from monai_transfer.data.readers import SafeReader
from monai_transfer.errors import InputError
from monai_transfer.manifest import Case

__all__ = ["COLOURS", "picture_mode", "refuse_deep_colours"]

COLOURS = ("red", "green", "blue")
"""Names of the channels of a colour picture."""
_LOOKED = 12
T = TypeVar("T")


def picture_mode(
    paths: Mapping[str, Sequence[str]], asked: str | None, source_channels: int | None, reasons: Reasons
) -> str:
    """``grey`` or ``rgb``.

    Colours are read where every site's pictures hold some. What is learnt at a site without any knows nothing of
    colours: from fluorescence to stained histology a source read in colour was of no use (docs/real_data.md).

    Args:
        paths: some of the training pictures of each site.
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
    counts = {site: _coloured(pictures) for site, pictures in paths.items()}
    looked, coloured = sum(n for n, _ in counts.values()), sum(n for _, n in counts.values())
    grey = [site for site, (_, n) in counts.items() if n == 0]
    if not coloured:
        return str(reasons.add("channels", "grey", f"{looked} pictures hold no colour"))
    if grey:
        why = (
            f"pictures of {', '.join(grey)} hold no colour, so none is learnt there (--channels rgb reads the others')"
        )
        return str(reasons.add("channels", "grey", why))
    return str(reasons.add("channels", "rgb", f"{coloured} of {looked} pictures hold colours"))


def _spread(items: Sequence[T]) -> list[T]:
    """At most a dozen, from all over."""
    return list(items)[:: max(1, len(items) // _LOOKED)][:_LOOKED]


def _coloured(paths: Sequence[str]) -> tuple[int, int]:
    """How many pictures were looked at, and how many of them hold colours."""
    reader, coloured = SafeReader(), 0
    looked = _spread(paths)
    for path in looked:
        array = reader.read_volume(path).array
        coloured += int(array.ndim == 3 and np.any(array != array[..., :1]))
    return len(looked), coloured


def refuse_deep_colours(cases: Sequence[Case]) -> None:
    """Colours of 16 bits: training reads them whole, but Pillow, which inference reads with, keeps 8 of the bits.

    Raises:
        InputError: a picture has them.
    """
    reader = SafeReader()
    for case in _spread(cases):
        array = reader.read_volume(case.images[0]).array
        if array.ndim == 3 and array.dtype.itemsize > 1:
            fault = "a picture with colours of 16 bits, of which a bundle's inference (MONAI and Pillow) reads 8"
            raise InputError(fault, path=case.images[0], hint="convert the pictures to 8 bits, or --channels grey")
