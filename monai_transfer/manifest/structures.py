"""Named structures of a set (DICOM SEG, RTSTRUCT, ``.seg.nrrd``) as masks of one numbering, overlaps and all.

Structures of all cases are collected first, since what lies on top where two overlap is one decision for the whole set:
in the order that the user's ``--labels`` gives, later ones on top; else by size, so that a small structure is not
erased by a large one around it. With ``overlaps="regions"`` nothing is erased: voxels of several structures get a value
of their own, and every structure is a region.
"""

from __future__ import annotations

import fnmatch
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from monai_transfer.errors import InputError
from monai_transfer.manifest.contours import Drawing
from monai_transfer.manifest.layouts.base import count, derived_path

__all__ = ["OVERLAPS", "Structures"]

OVERLAPS = ("order", "regions")
_MOST = 64


@dataclass
class Structures:
    """Which structure becomes which class, and the masks that are waiting to be written.

    Use :meth:`of`, then :meth:`add` for every case, then :meth:`finish` once.

    Attributes:
        classes: class names in the order of their numbers, without the background.
        of_name: class by structure name.
        ordered: the user gave the classes in an order.
        overlaps: ``order`` or ``regions``.
        ignored: structures that the labels leave out.
    """

    classes: list[str]
    of_name: dict[str, str]
    ordered: bool = False
    overlaps: str = "order"
    ignored: set[str] = field(default_factory=set)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    nested: dict[str, list[float]] = field(default_factory=dict)
    regions: dict[str, list[int]] = field(default_factory=dict)
    _in_cases: Counter[str] = field(default_factory=Counter)
    _waiting: list[tuple[Path, Path]] = field(default_factory=list)
    _folder: Path | None = None
    _voxels: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(
        cls, by_case: Sequence[Sequence[str]], given: Sequence[str] | Mapping[Any, str] | None, overlaps: str = "order"
    ) -> Structures:
        """Classes for structures, whose names come by case.

        ``given`` maps structure names (or patterns such as ``GTV*``) to class names; a mere list, such as ``background,
        tumour``, names the structure where every case has one only, and else picks structures by name.

        Raises:
            InputError: the names that were given fit no structure, there are more than 64, or ``overlaps`` is neither
                way.
        """
        if overlaps not in OVERLAPS:
            raise InputError(f"--overlaps {overlaps!r} is no way", hint=f"one of {', '.join(OVERLAPS)}")
        names = sorted({name for case in by_case for name in case})
        if given is None:
            return cls._checked(names, {name: name for name in names}, False, overlaps, set())
        if isinstance(given, Mapping):
            rules = {str(pattern): str(name) for pattern, name in given.items() if str(pattern) != "0"}
        else:
            wanted = [name for i, name in enumerate(given) if i or len(given) == 1]
            single = len(wanted) == 1 and all(len(case) == 1 for case in by_case)
            rules = {"*": wanted[0]} if single else {name: name for name in wanted}
        of_name = {}
        for name in names:
            hit = next((target for pattern, target in rules.items() if fnmatch.fnmatchcase(name, pattern)), None)
            if hit is not None:
                of_name[name] = hit
        if not of_name:
            shown = ", ".join(names[:8])
            hint = f"structures are called {shown}; write --labels STRUCTURE=NAME, patterns such as GTV*=tumour too"
            raise InputError("the labels that were given fit no structure", hint=hint)
        classes = list(dict.fromkeys(rules.values()))
        return cls._checked(classes, of_name, True, overlaps, set(names) - set(of_name))

    @classmethod
    def _checked(
        cls, classes: list[str], of_name: dict[str, str], ordered: bool, overlaps: str, ignored: set[str]
    ) -> Structures:
        if len(classes) > _MOST:
            hint = f"choose at most {_MOST} of them with --labels"
            raise InputError(f"{len(classes)} structures in one set", hint=hint)
        return cls(classes, of_name, ordered, overlaps, ignored)

    def add(self, drawn: Mapping[str, Drawing], affine: np.ndarray, target: Path) -> None:
        """Keep the structures of one case, to be written to ``target`` by :meth:`finish`.

        Args:
            drawn: by structure name.
            affine: of the masks, 4 x 4, RAS.
            target: a ``.nii.gz`` file.
        """
        codes: np.ndarray | None = None
        self._in_cases.update({self.of_name[name] for name in drawn if name in self.of_name})
        for name, one in drawn.items():
            label = self.of_name.get(name)
            if label is None:
                continue
            self.left_out += Counter({(name, kind): n for kind, n in one.left_out.items()})
            if one.nested:
                self.nested.setdefault(name, []).extend(one.nested)
            if codes is None:
                codes = np.zeros(one.mask.shape, dtype=np.uint64)
            codes[one.mask] |= np.uint64(1 << self.classes.index(label))
        if codes is None:
            shape = next(iter(drawn.values())).mask.shape if drawn else (1, 1, 1)
            codes = np.zeros(shape, dtype=np.uint64)
        for i, label in enumerate(self.classes):
            self._voxels[label] += int(np.count_nonzero(codes & np.uint64(1 << i)))
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="structures-"))
        kept = self._folder / f"{len(self._waiting)}.npz"
        np.savez_compressed(kept, codes=codes, affine=affine)
        self._waiting.append((kept, target))

    def finish(self) -> list[str]:
        """Write all masks that were kept; returns what is to be said, one clause each."""
        order = self.classes if self.ordered else sorted(self.classes, key=lambda name: -self._voxels[name])
        together = Counter[str]()
        lost = Counter[str]()
        values: dict[int, int] = {}
        try:
            for kept, target in self._waiting:
                with np.load(kept) as stored:
                    codes, affine = stored["codes"], stored["affine"]
                drawn = self._by_regions(codes, values) if self.overlaps == "regions" else self._by_order(codes, order)
                for i, label in enumerate(self.classes):
                    inside = (codes & np.uint64(1 << i)) > 0
                    together[label] += int(np.count_nonzero(inside & (codes != np.uint64(1 << i))))
                    lost[label] += int(np.count_nonzero(inside & (drawn != i + 1)))
                with derived_path(target) as temporary:
                    nibabel.save(nibabel.Nifti1Image(drawn, affine), temporary)
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
        return [*self._overlap_notes(order, together, lost, values), *self._contour_notes(), *self._partly()]

    def _partly(self) -> list[str]:
        """Which classes are drawn in some cases alone: there a voxel without a mark counts as background."""
        total = len(self._waiting)
        some = [label for label in self.classes if 0 < self._in_cases[label] < total]
        if not some:
            return []
        shown = ", ".join(f"{label} in {self._in_cases[label]}" for label in some)
        hint = "if nobody looked for it there, say what was looked for: --annotated SITE=..., or `annotated` in a case"
        return [f"of {total} structure files, {shown}: elsewhere it counts as absent; {hint}"]

    @property
    def labels(self) -> dict[int, str]:
        """Class names by number, background first; with regions also those of the overlaps."""
        return {0: "background"} | dict(enumerate([*self.classes, *self._combined], start=1))

    _combined: list[str] = field(default_factory=list)

    def _by_order(self, codes: np.ndarray, order: Sequence[str]) -> np.ndarray:
        drawn = np.zeros(codes.shape, dtype=np.uint8)
        for label in order:
            i = self.classes.index(label)
            drawn[(codes & np.uint64(1 << i)) > 0] = i + 1
        return drawn

    def _by_regions(self, codes: np.ndarray, values: dict[int, int]) -> np.ndarray:
        """One value for each combination of structures; ``values`` gathers them over the cases."""
        drawn = np.zeros(codes.shape, dtype=np.uint16)
        for code in map(int, np.unique(codes)):
            parts = [i for i in range(len(self.classes)) if code >> i & 1]
            if len(parts) > 1 and code not in values:
                values[code] = len(self.classes) + len(values) + 1
                self._combined.append("+".join(self.classes[i] for i in parts))
            if parts:
                drawn[codes == np.uint64(code)] = values[code] if len(parts) > 1 else parts[0] + 1
        return drawn.astype(np.uint8) if drawn.max() < 256 else drawn

    def _overlap_notes(
        self, order: Sequence[str], together: Counter[str], lost: Counter[str], values: dict[int, int]
    ) -> list[str]:
        touched = [label for label in order if together[label]]
        if not touched:
            return []
        if self.overlaps == "regions":
            self.regions = {
                label: [i + 1, *(value for code, value in values.items() if code >> i & 1)]
                for i, label in enumerate(self.classes)
            }
            shown = ", ".join(f"{label} {_share(together[label], self._voxels[label])}" for label in touched)
            return [f"structures overlap (shared with others: {shown}): each is a region, an output of its own"]
        shown = ", ".join(f"{label} {_share(lost[label], self._voxels[label])}" for label in touched)
        why = "as --labels has it" if self.ordered else "by size"
        text = f"structures overlap: drawn in the order {', '.join(touched)} ({why}), later ones on top; lost: {shown}"
        return [f"{text}; --labels in another order changes it, --overlaps regions keeps all"]

    def _contour_notes(self) -> list[str]:
        notes = []
        for name, areas in sorted(self.nested.items()):
            size = f"{sum(areas):.3g} mm2 in all, the largest {max(areas):.3g}"
            which = f"{name}: {count(len(areas), 'contour')} wholly inside another ({size})"
            notes.append(f"{which}: --nested hole (the default) makes holes, fill does not")
        for (name, kind), n in sorted(self.left_out.items()):
            notes.append(f"{name}: {count(n, 'contour')} left out: {kind}")
        if self.ignored:
            shown = ", ".join(sorted(self.ignored)[:8])
            notes.append(f"{count(len(self.ignored), 'structure')} not among the labels, left out: {shown}")
        return notes


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "0 %"
