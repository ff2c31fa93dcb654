"""Options of ``monai-transfer manifest`` as they are typed: names, regions, values and classes by site."""

from __future__ import annotations

from collections.abc import Sequence

from monai_transfer.errors import InputError

__all__ = ["annotated_of", "names_of", "numbers_of", "regions_of", "values_of", "words_of"]


def words_of(text: str | None) -> tuple[str, ...]:
    """``a, b`` as its parts."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def names_of(text: str | None) -> list[str] | dict[str, str] | None:
    """Class names in order (``normal,pneumonia``) or by what is found (``0=background,1=tumour,4=tumour``).

    Raises:
        InputError: the two ways are mixed.
    """
    parts = list(words_of(text))
    if not any("=" in part for part in parts):
        return parts or None
    pairs = [part.partition("=") for part in parts]
    if not all(key and sign and value for key, sign, value in pairs):
        raise InputError(f"--labels {text!r} mixes two ways", hint="write normal,pneumonia or 0=normal,1=pneumonia")
    return {key.strip(): value.strip() for key, _, value in pairs}


def regions_of(text: str | None) -> dict[str, list[int]] | None:
    """``whole=1+2+4,core=1+4`` as values by region; ``none`` is no region.

    Raises:
        InputError: a part is no name with whole numbers.
    """
    if text is None:
        return None
    if text.strip().lower() == "none":
        return {}
    regions = {}
    for part in words_of(text):
        name, _, values = part.partition("=")
        numbers = values.split("+")
        if not name.strip() or not all(number.strip().isdecimal() for number in numbers):
            raise InputError(f"--regions {part!r} is no region", hint="write whole=1+2+4,core=1+4, or none")
        regions[name.strip()] = [int(number) for number in numbers]
    return regions


def values_of(text: str | None) -> tuple[int, ...]:
    """``255,254`` as whole numbers.

    Raises:
        InputError: a part is none.
    """
    parts = words_of(text)
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--ignore {text!r} is no mask value", hint="write 255, or 254,255")
    return tuple(int(part) for part in parts)


def annotated_of(texts: Sequence[str] | None) -> dict[str, list[str]]:
    """``north=liver,spleen`` (one for each site) as classes by site.

    Raises:
        InputError: one is no site with classes.
    """
    result = {}
    for text in texts or ():
        site, sign, names = text.partition("=")
        if not sign or not site.strip() or not words_of(names):
            hint = "write --annotated SITE=liver,spleen, once for each site"
            raise InputError(f"--annotated {text!r} names no classes of a site", hint=hint)
        result[site.strip()] = list(words_of(names))
    return result


def numbers_of(text: str) -> tuple[float, ...]:
    """``0.6,0.15,0.25`` as numbers.

    Raises:
        InputError: they are none.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--fractions {text!r} are no numbers", hint="write 0.6,0.15,0.25") from None
