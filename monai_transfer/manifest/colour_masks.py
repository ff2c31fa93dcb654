"""Masks in which each class has a colour: written as class numbers, by colours that are declared or found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from monai_transfer.errors import InputError
from monai_transfer.manifest.layouts.base import RawCase, count, derived_path
from monai_transfer.manifest.masks import packed_colours
from monai_transfer.manifest.options import Names, Progress

__all__ = ["number_colours"]

_MOST = 64
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_LOSSY = (".jpg", ".jpeg")


def number_colours(
    cases: Sequence[RawCase], names: Sequence[str], labels: Names | None, folder: Path, progress: Progress,
    notes: list[str],
) -> dict[int, str] | None:  # fmt: skip
    """Put class numbers in the place of colours, in place; the numbers' names, or ``None`` where no mask is coloured.

    Args:
        cases: those whose masks are looked at. names: theirs.
        labels: what the user says: ``{"#ff0000": "tumour"}`` declares colours; a list names the colours that are found,
            black first, then in the order of their codes; ``None``: they are called by their codes.
        folder: where the masks of numbers go.
        progress: shows how far that is.
        notes: receives what was done.

    Raises:
        InputError: colours that are not declared, too many to be classes, or none that is the background.
    """
    declared = _declared(labels)
    found: dict[int, np.ndarray] = {}
    everything = declared is not None
    pairs = [(n, case.label) for n, case in enumerate(cases) if isinstance(case.label, Path)]
    first: dict[int, Path] = {}
    if not everything:  # beside coloured masks a black or white one is coloured, too
        everything = any(packed_colours(path) is not None for _, path in pairs)
    for n, path in progress(pairs, "Reading the colours of masks") if everything else ():
        colours = packed_colours(path, always=True)
        if colours is not None:
            found[n] = np.unique(colours)
            for colour in found[n].tolist():
                first.setdefault(colour, path)
    if not found:
        if declared is not None:
            hint = "name values by number: --labels 0=background,1=tumour"
            raise InputError("--labels names colours, and no mask is coloured", hint=hint)
        return None
    table, classes = declared if declared is not None else _found(first, labels)
    odd = next((colour for colour in first if colour not in table), None)
    if odd is not None:
        shown = ", ".join(_code(colour) for colour in list(table)[:5])
        hint = f"add {_code(odd)}=NAME to --labels (now {shown}), or export the mask without smoothed edges, as PNG"
        raise InputError(f"holds the colour {_code(odd)}, which is not declared", path=first[odd], hint=hint)
    for n in progress(list(found), "Writing masks of class numbers"):
        path, target = cases[n].label, folder / f"{names[n]}.png"
        assert isinstance(path, Path)
        colours = packed_colours(path, always=True)
        assert colours is not None
        result = np.zeros(colours.shape, dtype=np.uint8)
        for colour in found[n].tolist():
            result[colours == colour] = table[colour]
        with derived_path(target) as temporary:
            Image.fromarray(result).save(temporary, format="PNG")
        cases[n].label = target
    told = ", ".join(f"{_code(colour)} = {classes[number]}" for colour, number in table.items())
    notes.append(f"{count(len(found), 'coloured mask')} written as class numbers to {folder}: {told}")
    return classes


def _declared(labels: Names | None) -> tuple[dict[int, int], dict[int, str]] | None:
    """Number by colour and name by number, of ``{"#ff0000": "tumour"}``; black is the background unless it is named."""
    if not isinstance(labels, Mapping) or not any(_COLOUR.fullmatch(str(key)) for key in labels):
        return None
    wrong = next((key for key in labels if not _COLOUR.fullmatch(str(key))), None)
    if wrong is not None:
        raise InputError(f"--labels mixes colours with {wrong!r}", hint="write '#000000=background,#ff0000=tumour'")
    by_colour = {int(str(key)[1:], 16): str(name) for key, name in labels.items()}
    by_colour = by_colour if "background" in map(str.lower, by_colour.values()) else {0: "background"} | by_colour
    order = sorted(dict.fromkeys(by_colour.values()), key=lambda name: name.lower() != "background")
    numbers = {name: number for number, name in enumerate(order)}
    return {colour: numbers[name] for colour, name in by_colour.items()}, dict(enumerate(order))


def _found(first: Mapping[int, Path], labels: Names | None) -> tuple[dict[int, int], dict[int, str]]:
    """The same for colours that the masks hold."""
    some = next(iter(first.values()))
    example = "--labels '#000000=background,#ff0000=tumour'"
    if len(first) > _MOST or some.suffix.lower() in _LOSSY:
        why = "a JPEG does not keep colours" if some.suffix.lower() in _LOSSY else f"masks hold {len(first)} colours"
        hint = f"export them as PNG without smoothed edges, one colour for each class, and say which: {example}"
        raise InputError(f"colours do not tell the classes: {why}", path=some, hint=hint)
    if 0 not in first:
        shown = ", ".join(map(_code, sorted(first)[:6]))
        raise InputError(
            f"masks hold the colours {shown}, none of them black", path=some, hint=f"say which is which: {example}"
        )
    order = sorted(first)
    given = None if labels is None else list(labels.values()) if isinstance(labels, Mapping) else list(labels)
    if given is not None and (isinstance(labels, Mapping) or len(given) != len(order)):
        shown = ", ".join(map(_code, order[:6]))
        raise InputError(
            f"--labels does not fit the colours of the masks ({shown})", path=some, hint=f"name them: {example}"
        )
    called = given or ["background", *(_code(colour) for colour in order[1:])]
    return {colour: number for number, colour in enumerate(order)}, dict(enumerate(map(str, called)))


def _code(colour: int) -> str:
    return f"#{colour:06x}"
