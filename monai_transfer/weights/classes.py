"""Class heads mapped by class name: rows of the source's head go where the network has the class of the same name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from monai_transfer.errors import InputError

__all__ = ["ClassMap", "class_axes", "class_names", "names_for", "same_name"]


def class_names(names: Sequence[str] | Mapping[str, str] | None, what: str = "class") -> list[str] | None:
    """Class names in the order of the channels, from a list or a ``{"0": "background", ...}`` mapping.

    Args:
        names: the names, or ``None``. what: what they are of, for the error (``"class"``, ``"channel"``).

    Raises:
        InputError: two have one name (names are compared without case), or keys are no numbers from 0 on.

    >>> class_names({"1": "liver", "0": "background"})
    ['background', 'liver']
    """
    if names is None:
        return None
    if isinstance(names, Mapping):
        try:
            numbered = sorted((int(key), str(value)) for key, value in names.items())
        except ValueError:
            raise InputError(
                f"{what} numbers must be whole numbers, not {list(names)}", hint="number them 0, 1, 2 ..."
            ) from None
        if [number for number, _ in numbered] != list(range(len(numbered))):
            raise InputError(
                f"{what} numbers must run from 0 without a gap, not {[n for n, _ in numbered]}",
                hint="number them 0, 1, 2 ...",
            )
        names = [value for _, value in numbered]
    if isinstance(names, str):
        raise InputError(f"{what} names must be a list, not the text {names!r}", hint='such as ["background", "liver"]')
    result = [str(name) for name in names]
    plain = [same_name(name) for name in result]
    if len(set(plain)) < len(plain):
        twice = next(name for name, key in zip(result, plain, strict=True) if plain.count(key) > 1)
        of = "classes" if what == "class" else f"{what}s"
        raise InputError(
            f"two {of} are named {twice!r} (upper and lower case count as equal)", hint="give each a name of its own"
        )
    return result


def same_name(name: str) -> str:
    """A name without what makes no difference: case, spaces, ``_`` and ``-``.

    Args:
        name: of a class or channel.

    >>> same_name("Left_Kidney") == same_name("left kidney")
    True
    """
    return " ".join(name.replace("_", " ").replace("-", " ").split()).casefold()


@dataclass(frozen=True)
class ClassMap:
    """Which channel of the source serves which channel of the network.

    Attributes:
        pairs: (channel in the network, channel in the source).
        n_source, n_target: numbers of channels.
        note: what became of every class, in words.

    >>> ClassMap.by_name(["background", "Liver", "spleen"], ["background", "spleen", "kidney"]).pairs
    ((0, 0), (1, 2))
    """

    pairs: tuple[tuple[int, int], ...]
    n_source: int
    n_target: int
    note: str

    @classmethod
    def by_name(cls, source: Sequence[str], target: Sequence[str]) -> ClassMap:
        """Match equal names; upper and lower case, spaces, ``_`` and ``-`` make no difference."""
        there = {same_name(name): channel for channel, name in enumerate(source)}
        pairs = tuple(
            (channel, there[same_name(name)]) for channel, name in enumerate(target) if same_name(name) in there
        )
        kept = {channel for channel, _ in pairs}
        used = {channel for _, channel in pairs}
        note = f"classes by name: {', '.join(target[c] for c in sorted(kept)) or 'none in common'}"
        new = [name for channel, name in enumerate(target) if channel not in kept]
        dropped = [name for channel, name in enumerate(source) if channel not in used]
        note += f"; new, as initialised: {', '.join(new)}" if new else ""
        note += f"; dropped: {', '.join(dropped)}" if dropped else ""
        return cls(pairs, len(source), len(target), note)

    @property
    def is_identity(self) -> bool:
        """The same names in the same order."""
        return self.n_source == self.n_target and self.pairs == tuple((c, c) for c in range(self.n_target))

    @property
    def new(self) -> tuple[int, ...]:
        """The network's channels that the source has not."""
        known = {channel for channel, _ in self.pairs}
        return tuple(channel for channel in range(self.n_target) if channel not in known)

    def apply(self, source: Tensor, fresh: Tensor, axes: Sequence[int], *, like_background: bool = False) -> Tensor:
        """Copy the matching slices along every one of ``axes`` into ``fresh``; the other slices stay as they were.

        In a layer that maps classes to classes, the old classes' outputs take nothing from the new ones' (zeros), so
        that they are the source's.

        Args:
            source, fresh: the layer's tensor on either side.
            axes: those that count classes.
            like_background: the slices of new classes are those of the first class, where the source has it.
        """
        result = fresh.clone()
        if not self.pairs:
            return result
        rows, columns = (torch.tensor(side) for side in zip(*self.pairs, strict=True))
        first, new = axes[0], torch.tensor(self.new, dtype=torch.long)
        picked = source.index_select(first, columns).to(fresh)
        if len(axes) > 1:
            second = axes[1]
            inner = result.index_select(first, rows).index_fill(second, new, 0.0)
            picked = inner.index_copy(second, rows, picked.index_select(second, columns))
        result = result.index_copy(first, rows, picked)
        if like_background and len(new) and 0 not in self.new:
            result = result.index_copy(first, new, result.narrow(first, 0, 1).repeat_interleave(len(new), first))
        return result


def names_for(names: Sequence[str] | None, width: int) -> list[str] | None:
    """The names of a head's ``width`` outputs; ``None`` where the number differs. A head that leaves the background
    out (one sigmoid output per structure) is named by the other classes.

    Args:
        names: of all classes, the background first; None: unknown.
        width: number of the head's outputs.

    >>> names_for(["background", "liver"], 2), names_for(["background", "liver"], 1), names_for(["liver"], 3)
    (['background', 'liver'], ['liver'], None)
    """
    if names is None:
        return None
    if len(names) == width + 1 and same_name(names[0]) in ("background", "bg"):
        return list(names[1:])
    return list(names) if len(names) == width else None


_CLASS_TO_CLASS = r"(^|\.)(model\.2\.1\.conv\.unit0\.conv|out_tr\.conv2)$"


def class_axes(name: str, module: nn.Module, parameter: str) -> tuple[int, ...]:
    """The axes that count classes in a parameter of the head layer ``name``.

    Transposed convolutions have their outputs second. The last layer of a residual output block (``UNet``, ``VNet``)
    maps classes to classes, so both of its axes count them; where each class has its own kernel (groups), the first.

    Args:
        name: of the layer.
        module: the layer.
        parameter: ``weight`` or ``bias``.

    >>> class_axes("final", nn.Conv3d(8, 3, 1), "weight"), class_axes("up", nn.ConvTranspose3d(8, 3, 2), "weight")
    ((0,), (1,))
    """
    if parameter != "weight" or getattr(module, "groups", 1) > 1:
        return (0,)
    transposed = isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    axes = (1, 0) if transposed else (0, 1)
    return axes if re.search(_CLASS_TO_CLASS, name) else axes[:1]
