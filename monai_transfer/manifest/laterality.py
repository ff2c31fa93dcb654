"""Left and right in class names: whether a mirror image would carry other names, and which classes change places.

Words for a side count alone (``left kidney``, ``Niere_links``, ``rein gauche``). Abbreviations that could mean
something else (``L``, ``R``, ``lt``, ``lh``, ``der``, ``LV``) count only where the class with the other side is there,
and so does a side inside a word (``leftventricle``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from monai_transfer.errors import InputError

__all__ = ["Sides", "find_sides", "mirror_pairs"]

# stems of left and right, and the endings with which they are words of their own
_WORDS = (
    *(("left", "right", " hand side sided"), ("links", "rechts", " "), ("link", "recht", "e en er es em")),
    *(("gauche", "droite", " s"), ("gauche", "droit", " s"), ("sinister", "dexter", " ")),
    *(("sinistr", "dextr", "a o e i um us am"), ("sinistr", "destr", "a o e i")),
    *(("izquierd", "derech", "a o as os"), ("esquerd", "direit", "a o as os"), ("stâng", "drept", "a ă ul ")),
    *(("vänster", "höger", " "), ("vänstra", "högra", " "), ("venstre", "højre", " "), ("venstre", "høyre", " ")),
    *(("vasen", "oikea", " "), ("lew", "praw", "y a e ej ego"), ("lev", "prav", "ý á é")),
    *(("лев", "прав", "ый ая ое ой ого"), ("lh", "rh", " ")),  # FreeSurfer's hemispheres
)
_SIGNS = (("左", "右"), ("왼", "오른"), ("좌", "우"), ("يسر", "يمن"))
# shorter ones, or words of another meaning: only beside their partner
_SHORT = (
    *(("l", "r"), ("lt", "rt"), ("le", "ri"), ("lft", "rgt"), ("li", "re"), ("sin", "dex")),
    *(("sin", "dx"), ("sn", "dx"), ("sx", "dx"), ("izq", "der"), ("esq", "dir"), ("g", "d"), ("os", "od")),
    *(("lhs", "rhs"), ("bal", "jobb"), ("sol", "sağ")),
)


@dataclass(frozen=True)
class Sides:
    """The sides in a set of class names.

    Attributes:
        sided: the names with a side, in their order.
        pairs: places of classes that change places in a mirror image, ``(left, right)``.
        alone: those of ``sided`` whose partner is not among the names.

    >>> sides = find_sides(["background", "left lung", "right lung", "left kidney"])
    >>> sides.pairs, sides.alone
    (((1, 2),), ('left kidney',))
    """

    sided: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    alone: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.sided)


def find_sides(names: Iterable[str]) -> Sides:
    """The names with a side in them, and which are each other's mirror images.

    Args:
        names: of classes, findings or regions.

    Example:
        >>> find_sides(["background", "kidney_left", "kidney_right", "leftover"]).pairs
        ((1, 2),)
        >>> find_sides(["background", "L", "T"]).sided, find_sides(["background", "L", "R"]).sided
        ((), ('L', 'R'))
        >>> find_sides(["background", "left atrium"]).alone
        ('left atrium',)
    """
    listed = list(names)
    place = {_words_of_name(name): i for i, name in enumerate(listed)}
    pairs: list[tuple[int, int]] = []
    for i, name in enumerate(listed):
        for other in _mirrored(name):
            j = place.get(other)
            if j is not None and j != i and not any({i, j} & set(pair) for pair in pairs):
                pairs.append((i, j))
    paired = {i for pair in pairs for i in pair}
    alone = [name for i, name in enumerate(listed) if i not in paired and _has_word(name)]
    sided = [name for i, name in enumerate(listed) if i in paired or name in alone]
    return Sides(tuple(sided), tuple(sorted(pairs)), tuple(alone))


def mirror_pairs(names: Iterable[str]) -> list[list[int]]:
    """The classes that change places in a mirror image, for flips that swap them.

    Args:
        names: of the outputs, in their order.

    Raises:
        InputError: a class with a side has no partner, so its mirror image is of no class.

    Example:
        >>> mirror_pairs(["background", "left lung", "right lung", "heart"])
        [[1, 2]]
    """
    found = find_sides(names)
    if found.alone:
        fault = f"the mirror image of {found.alone[0]!r} is of no class, so classes cannot change places"
        raise InputError(fault, hint="leave out the flip from left to right")
    return [list(pair) for pair in found.pairs]


def _words(name: str) -> list[str]:
    """The words of a name in lower case: parted at marks, at digits and where capitals begin (``LeftLung``)."""
    spaced = re.sub(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    return [word for word in re.split(r"[\W_]+", spaced.lower()) if word]


def _words_of_name(name: str) -> str:
    return " ".join(_words(name))


def _has_word(name: str) -> bool:
    if any(sign in name for pair in _SIGNS for sign in pair):
        return True
    return any(
        word in (left + ending, right + ending)
        for word in _words(name)
        for left, right, endings in _WORDS
        for ending in endings.split(" ")
    )


def _mirrored(name: str) -> list[str]:
    """Every name that may be this one's mirror image, if a left side stands in it."""
    words, found = _words(name), []
    for i, word in enumerate(words):
        options: list[str] = [right for left, right in _SHORT if word == left]
        for left, right, endings in _WORDS:
            if word.removeprefix(left) in endings.split(" ") and word.startswith(left):
                options += [right + ending for ending in ("", *endings.split(" "))]
            elif len(left) > 3 and left in word:  # leftventricle
                options.append(word.replace(left, right, 1))
        if 2 <= len(word) <= 3 and word.startswith("l"):
            options.append("r" + word[1:])  # LV and RV
        found += [" ".join([*words[:i], option, *words[i + 1 :]]) for option in options]
    return [*found, *(_words_of_name(name.replace(left, right)) for left, right in _SIGNS if left in name)]


def swapped(channels: Sequence[int], pairs: Iterable[Sequence[int]]) -> list[int]:
    """The order of channels (or class numbers) in which each pair has changed places.

    Example:
        >>> swapped([0, 1, 2, 3], [[1, 2]])
        [0, 2, 1, 3]
    """
    order = list(channels)
    for first, second in pairs:
        order[first], order[second] = order[second], order[first]
    return order
