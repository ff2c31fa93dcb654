"""Drawing the structures of a set's DICOM segmentations into masks of one numbering."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.manifest.dicom_grid import Grid
from monai_transfer.manifest.dicom_masks import read_structures, structure_names
from monai_transfer.manifest.layouts.base import count

__all__ = ["Numbering"]


@dataclass
class Numbering:
    """Which structure becomes which number: by the user's names, or one number per structure name.

    Attributes:
        labels: class names by number, background first.
        numbers: number by structure name.
        overlaps: pairs of classes that overlap, with the number of masks in which they do.
    """

    labels: dict[int, str]
    numbers: dict[str, int]
    overlaps: dict[tuple[str, str], int] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)

    @classmethod
    def settle(cls, objects: Sequence[Sequence[Path]], given: Sequence[str] | Mapping[Any, str] | None) -> Numbering:
        """Numbers for the structures of all DICOM objects, which come by case; see :meth:`of`."""
        return cls.of([[name for path in paths for name in structure_names(path)] for paths in objects], given)

    @classmethod
    def of(cls, by_case: Sequence[Sequence[str]], given: Sequence[str] | Mapping[Any, str] | None) -> Numbering:
        """Numbers for structures, whose names come by case.

        ``given`` maps structure names (or patterns such as ``GTV*``) to class names; a mere list, such as ``background,
        tumour``, names the structure where every case has one only, and else picks structures by name.

        Raises:
            InputError: the names that were given fit no structure.
        """
        names = sorted({name for case in by_case for name in case})
        if given is None:
            return cls(
                {0: "background"} | dict(enumerate(names, start=1)), {n: i for i, n in enumerate(names, start=1)}
            )
        if isinstance(given, Mapping):
            rules = {str(pattern): str(name) for pattern, name in given.items() if str(pattern) != "0"}
        else:
            wanted = [name for i, name in enumerate(given) if i or len(given) == 1]
            single = len(wanted) == 1 and all(len(case) == 1 for case in by_case)
            rules = {"*": wanted[0]} if single else {name: name for name in wanted}
        classes = list(dict.fromkeys(rules.values()))
        numbers = {}
        for name in names:
            hit = next((target for pattern, target in rules.items() if fnmatch.fnmatchcase(name, pattern)), None)
            if hit is not None:
                numbers[name] = 1 + classes.index(hit)
        if not numbers:
            shown = ", ".join(names[:8])
            hint = f"structures are called {shown}; write --labels STRUCTURE=NAME, patterns such as GTV*=tumour too"
            raise InputError("the labels that were given fit no structure", hint=hint)
        return cls({0: "background"} | dict(enumerate(classes, start=1)), numbers, {}, set(names) - set(numbers))

    def draw(self, objects: Sequence[Path], files: list[Path], target: Path) -> None:
        """Draw all structures of a case into one mask on its series' grid; where two overlap the higher number wins.

        Raises:
            InputError: the series has no even grid, or an object does not lie on it.
        """
        grid = Grid.read(files)
        masks: dict[int, np.ndarray] = {}
        for path in objects:
            for name, mask in read_structures(path, grid).items():
                number = self.numbers.get(name)
                if number is not None:
                    masks[number] = masks.get(number, np.zeros(grid.shape, dtype=bool)) | mask
        grid.save(self.combine(masks, grid.shape), target)

    def combine(self, masks: Mapping[int, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
        """One uint8 mask of the boolean ones by number; where two overlap the higher number wins, and it is counted."""
        drawn = np.zeros(shape, dtype=np.uint8)
        for number in sorted(masks):
            for below in np.unique(drawn[masks[number] & (drawn > 0)]):
                pair = (self.labels[int(below)], self.labels[number])
                self.overlaps[pair] = self.overlaps.get(pair, 0) + 1
            drawn[masks[number]] = number
        return drawn

    def notes(self) -> list[str]:
        """Overlaps and structures that were left out, one clause each."""
        notes = [
            f"{upper} overlaps {lower} in {count(n, 'mask')}: {upper} kept there"
            for (lower, upper), n in sorted(self.overlaps.items())
        ]
        if self.ignored:
            shown = ", ".join(sorted(self.ignored)[:8])
            notes.append(f"{count(len(self.ignored), 'structure')} not among the labels, left out: {shown}")
        return notes
